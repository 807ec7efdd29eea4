"""The GPU queue at scale: a real operator between thousands of jobs and fake nodes, watched by an independent client.

`history` takes in every event of the API server, `replay` puts them into the order in which they happened, `checks`
says what must never be, `simulate` plays the same policy without a cluster, `told` compares what waiting jobs were
told with what came, `scenarios` are the runs of `make campaign-queue`.
"""
