"""Admission: the decision that a job may start.

| module | responsibility |
|---|---|
| `decision` | `Admission`, the result |
| `candidate` | `Candidate`, what a kind of object supplies to be admitted |
| `controller` | `AdmissionController`, the interface of a backend |
| `factory` | chooses the backend from the settings |
| `builtin` | backend: the operator's own GPU queue |
| `kueue` | backend: decisions read from Kueue |
| `inventory_feed` | nodes, pods and ResourceQuotas for the builtin queue |
| `kueue_workloads` | Kueue's Workloads and queue positions |
| `policy_file` | the administrator's settings |
"""
