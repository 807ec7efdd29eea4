"""The proxy beside the engine: the only way to it, and the owner of its adapters."""
