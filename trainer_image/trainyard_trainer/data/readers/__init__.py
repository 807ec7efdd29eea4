"""One reader per kind of file: the rows of a byte stream one at a time, an error for each that cannot be read."""
