"""The REST API for users: thin routers over `services`, with the caller's token."""
