"""Bodies of a ModelDeployment's children."""
