"""The operator: watches TrainingJobs, decides by pure functions, writes through a thin shell."""
