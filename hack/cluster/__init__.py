"""The local cluster: a real Kubernetes on this machine, for development and for the tests.

Standard library only, because it runs before any virtual environment exists. The command is
`python3 hack/cluster`; tests import `cluster.api`.
"""
