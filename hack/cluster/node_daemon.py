"""Daemon of the local node: recycles released volumes and maintains the fake GPUs."""

import sys
import time

from cluster import api, settings, storage
from cluster.client import Client
from cluster.nodeconfig import NODE_NAME
from cluster.shell import say
from trainyard_kube.errors import ApiError

GPU = "nvidia.com/gpu"
_NODE = f"/api/v1/nodes/{NODE_NAME}"
_PAUSE_SECONDS = 3.0


def maintain_gpus(client: Client, count: int) -> None:
    """Set the fake GPUs in the node status; a restarted kubelet removes them.

    Raises:
        ApiError: the server did not answer.
    """
    status = client.get(_NODE)["status"]
    if all(status.get(field, {}).get(GPU, "0") == str(count) for field in ("capacity", "allocatable")):
        return
    value = str(count) if count else None
    client.patch(f"{_NODE}/status", {"status": {"capacity": {GPU: value}, "allocatable": {GPU: value}}})


def main(name: str) -> None:
    """Maintain a cluster's volumes and fake GPUs until terminated."""
    cluster = api.find(name)
    client = cluster.client()
    while True:
        try:
            storage.recycle(client)
            found = settings.load(cluster.state)
            maintain_gpus(client, found.fake_gpus if found else 0)
        except (ApiError, OSError) as failure:
            say(f"trying again in {_PAUSE_SECONDS:.0f} s: {failure}")
        time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
