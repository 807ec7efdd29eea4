"""Kueue Workloads as the API server lists them."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def workload(uid: str, version: int, *, finished: bool = False, name: str = "w") -> Object:
    conditions = [{"type": "Finished", "status": "True", "reason": "Succeeded"}] if finished else []
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": f"workload-{uid}",
            "resourceVersion": str(version),
            "labels": {"kueue.x-k8s.io/job-uid": uid},
            "annotations": {"trainyard.dev/held": "true", "other": "x"},
        },
        "spec": {"active": True, "queueName": "gpus", "podSets": [{"template": {"spec": {}}}]},
        "status": {"conditions": conditions, "admission": {}},
    }
