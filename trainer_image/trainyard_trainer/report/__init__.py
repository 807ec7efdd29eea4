"""Metrics, logs, progress reports and the termination message."""
