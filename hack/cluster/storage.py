"""The node's volumes: local folders as PersistentVolumes, recycled when their claim is deleted.

`local` volumes, because the kubelet applies no fsGroup to a hostPath. Kubernetes does not make a released local
volume available again, so the node daemon does.
"""

import shutil
from pathlib import Path
from typing import Any

from cluster.client import Client
from cluster.nodeconfig import NODE_NAME

COUNT = 48
SIZE = "100Gi"
_VOLUMES = "/api/v1/persistentvolumes"
_CLASS = "/apis/storage.k8s.io/v1/storageclasses/local"


def offer(client: Client, folder: Path) -> None:
    """Create the default StorageClass `local` and its volumes.

    Raises:
        ApiError: the server refused.
    """
    client.apply(_CLASS, storage_class())
    for index in range(COUNT):
        body = volume(index, folder)
        if not client.exists(f"{_VOLUMES}/{body['metadata']['name']}"):
            Path(body["spec"]["local"]["path"]).mkdir(parents=True, exist_ok=True)
            client.apply(f"{_VOLUMES}/{body['metadata']['name']}", body)


def recycle(client: Client) -> None:
    """Empty every volume whose claim is gone and make it available again.

    Raises:
        ApiError: the server did not answer.
        OSError: a folder could not be emptied.
    """
    for one in client.get(_VOLUMES)["items"]:
        if one["spec"].get("storageClassName") == "local" and one.get("status", {}).get("phase") == "Released":
            path = Path(one["spec"]["local"]["path"])
            shutil.rmtree(path, ignore_errors=False)
            path.mkdir()
            client.patch(f"{_VOLUMES}/{one['metadata']['name']}", {"spec": {"claimRef": None}})


def storage_class() -> dict[str, Any]:
    """Return the StorageClass: a claim is bound when its pod is placed."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Retain",
    }


def volume(index: int, folder: Path) -> dict[str, Any]:
    """Return one volume; its size is nominal, the disk is shared."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"local-{index}"},
        "spec": {
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "local",
            "local": {"path": str(folder / f"v{index}")},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
