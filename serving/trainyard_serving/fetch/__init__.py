"""Fetches models and adapters into a pod, from artifact readers, the hub and object storage."""
