"""Progress intake: reports of trainer pods, authenticated and written to the status at a bounded rate."""
