"""The GPU queue at scale: a real operator, thousands of jobs and fake nodes, watched by an independent client.

| module | responsibility |
|---|---|
| `history` | records every change that the API server reports |
| `replay` | state of the cluster after each change |
| `checks` | invariants of a history |
| `simulate` | the same policy without a cluster |
| `status_history` | published positions and estimates against the facts |
| `scenarios`, `replicas` | the runs of `make campaign-queue` |
| `queue_fixture` | the builtin controller in memory, for unit tests and benchmarks |
"""
