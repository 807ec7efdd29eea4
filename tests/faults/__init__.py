"""Faults between a client and the API server: a TLS reverse proxy, what it breaks, and campaigns of the operator.

`proxy.Proxy` stands alone: give its kubeconfig to any client that authenticates with a bearer token.
"""
