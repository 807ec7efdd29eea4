"""Memory of devices and containers, and recompute modes."""
