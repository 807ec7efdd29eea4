"""Artifact readers: one small read-only pod per claim, started on demand, that serves the files of finished runs."""
