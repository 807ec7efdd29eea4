"""Access to a Kubernetes API server: client, errors, informer, lease, Events and rate limits, for any kind."""
