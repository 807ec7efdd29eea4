"""What runs beside the engine in a replica of a ModelDeployment, and the artifact reader."""
