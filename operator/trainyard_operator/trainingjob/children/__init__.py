"""Bodies of the objects that are made for a TrainingJob."""
