"""Checkpoints: manifest written last, atomic rename, fencing by owner epoch."""
