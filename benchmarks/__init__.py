"""Repeatable measurements, each one command that prints a Markdown table of figures, bars and a peer's figures.

A benchmark is no test: it says what it found and asserts nothing about time.
"""
