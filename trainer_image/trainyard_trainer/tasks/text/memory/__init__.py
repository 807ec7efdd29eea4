"""Predicted peak memory of a text model, before its weights are loaded."""
