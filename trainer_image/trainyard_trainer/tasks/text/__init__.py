"""Shared by the tasks whose models read and write text."""
