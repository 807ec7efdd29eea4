"""What became of a job's pods: attempts, whose fault an end was, why a pod ended."""
