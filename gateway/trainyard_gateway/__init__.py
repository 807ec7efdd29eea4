"""The gateway: the intake for reports of trainer pods, and the REST API for users."""
