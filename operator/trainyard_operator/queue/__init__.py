"""The builtin GPU queue: admission order, placement, preemption and start estimates.

Pure: no clock, no I/O, no kind of object.

| module | responsibility |
|---|---|
| `models` | `Request` (a waiting job), `Admitted` (a job that holds GPUs), and the queue order |
| `pool` | nodes, taints, and the nodes that a job can use |
| `inventory` | GPUs of each node, and the pods that hold them |
| `elastic` | nodes that an autoscaler can still add |
| `free_capacity` | GPUs that are free during one admission cycle |
| `placement` | node per pod of a gang, all or nothing |
| `quota` | headroom of ResourceQuotas |
| `backfill` | the reservation of a blocked head, and the jobs that may pass it |
| `preemption` | the running jobs that a blocked head may replace |
| `policy` | the administrator's settings |
| `admission_cycle` | one pass over all waiting jobs |
| `reasons` | why a job waits |
| `backoff` | delay after a failed start |
| `estimate` | expected start of each waiting job |
| `position` | queue positions as the status shows them |
| `kueue_workload` | reading of Kueue's Workload |
"""
