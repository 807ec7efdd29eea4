"""One reader per row format."""
