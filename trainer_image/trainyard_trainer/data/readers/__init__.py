"""One reader per file type: each yields the rows of a byte stream, with an error in place of an unreadable row."""
