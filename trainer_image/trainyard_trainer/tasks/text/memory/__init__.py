"""Predicted peak memory of a text model, computed before its weights are loaded."""
