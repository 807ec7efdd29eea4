"""A small language model and instruction set, made offline from the documentation of Python and of locked packages."""
