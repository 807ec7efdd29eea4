"""The builtin GPU queue: who may start, in which order, on which GPUs, and when the others will.

Pure: no clock, no I/O.

| module | decides |
|---|---|
| `pool` | which nodes a job may use |
| `inventory` | how many GPUs each node has left |
| `request` | what a waiting or admitted job is to the queue, and the order of those that wait |
| `fit` | on which nodes a gang goes, or that it goes on none |
| `backfill` | what may pass a blocked head without delaying it |
| `preemption` | which running jobs a blocked head may replace |
| `room` | what is left during one round |
| `policy` | what an administrator sets |
| `reasons` | why a job waits, in words |
| `round` | one admission round over everything that waits |
| `estimate` | when a waiting job will start |
| `position` | which place is told, and when it is worth a write |
"""
