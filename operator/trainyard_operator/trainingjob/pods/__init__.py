"""How a job's pods ended: attempts, the pod at fault, reason and advice of an end."""
