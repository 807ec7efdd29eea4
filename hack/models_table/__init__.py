"""The table of docs/models.md: what each architecture can do, found by training tiny models of it."""
