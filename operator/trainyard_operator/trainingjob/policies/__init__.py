"""What is decided about one job, one policy a file; `phase` asks them in turn."""
