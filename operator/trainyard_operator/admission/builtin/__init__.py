"""The builtin admission backend: the operator's own GPU queue.

| module | responsibility |
|---|---|
| `controller` | runs admission cycles, answers the reconciler |
| `registry` | the jobs in the queue: ingest of changes, queue times, grants, run durations |
| `publication` | what the status of waiting jobs reports, and how often it changes |
| `view` | the debug endpoint |
"""
