"""The artifact reader: serves the checkpoints and exports on one claim, read-only."""
