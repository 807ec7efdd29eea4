"""Fault injection between a client and the API server: a TLS reverse proxy, its faults, and campaigns of the operator.

`proxy.Proxy` is independent of the rest: use its kubeconfig with any client that authenticates with a bearer token.
"""
