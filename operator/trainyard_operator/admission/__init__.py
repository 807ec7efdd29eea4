"""Decides when a job may start: the builtin queue or Kueue, behind one interface."""
