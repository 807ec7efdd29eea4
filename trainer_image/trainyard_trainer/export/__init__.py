"""Exports of a run; each is published complete, and only once."""
