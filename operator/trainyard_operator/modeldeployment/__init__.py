"""The kind ModelDeployment: a model with adapters, served by a Deployment of vLLM pods."""
