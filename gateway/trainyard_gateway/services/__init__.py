"""Services of the REST API: the logic of its endpoints, on objects read with the caller's token."""
