"""The activator: holds the first requests of ModelDeployments that are scaled to zero, and stops idle ones again."""
