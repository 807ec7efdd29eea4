"""The training loop and what it needs; it names no task."""
