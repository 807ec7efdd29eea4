"""TrainingJobs: pure decisions (plan.py and what it calls) and the thin shell that applies them (reconcile.py)."""
