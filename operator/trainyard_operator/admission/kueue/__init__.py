"""The Kueue admission backend: Kueue decides, the operator reports its decisions and queue positions."""
