"""The report of `status`: clusters, processes, images, disk."""

import os
from collections.abc import Iterator
from pathlib import Path

from cluster import binaries, kwok, node, settings
from cluster.api import Cluster, find
from cluster.controlplane import PROCESSES
from cluster.errors import ClusterError
from cluster.paths import cache_dir, state_dir
from cluster.registry import Registry
from trainyard_kube.errors import ApiError


def report() -> str:
    """Return what runs, with versions, kubeconfigs, registry, images and disk used."""
    states = sorted(path.parent for path in (state_dir() / "clusters").glob("*/cluster.json"))
    lines = [line for state in states for line in _cluster(state)]
    if not states:
        lines = ["no cluster; 'up' starts a node, 'up --api-only' a control plane alone", ""]
    return "\n".join([*lines, *_cache()])


def disk() -> str:
    """Return the disk that everything here uses, largest part first."""
    parts = {path.name: used(path) for path in cache_dir().glob("*/")} | {"clusters": used(state_dir() / "clusters")}
    shown = (f"{name} {_size(bytes_)}" for name, bytes_ in sorted(parts.items(), key=lambda part: -part[1]) if bytes_)
    return f"disk: {_size(sum(parts.values()))} in {cache_dir()} and {state_dir()} ({', '.join(shown) or 'empty'})"


def _cluster(state: Path) -> Iterator[str]:
    found = settings.load(state)
    if found is None:
        return
    yield f"{state.name} ({found.tier})"
    yield f"  kubeconfig  {state / 'kubeconfig'}"
    if found.tier == "kind":
        yield "  runs in     Docker; see 'docker ps'"
    else:
        yield from _processes(find(state.name))
    if found.tier == "node":
        yield from _images(state.name)
    yield f"  disk        {size(state)} in {state}"
    yield ""


def _processes(cluster: Cluster) -> Iterator[str]:
    processes = cluster.plane.processes
    running = [name for name in processes.names() if processes.pid(name) is not None]
    ended = [name for name in processes.names() if name not in running]
    yield f"  runs        {', '.join(running) or 'nothing; up starts it again'}"
    if running and ended:
        yield f"  ENDED       {', '.join(ended)}; 'up' starts them again, logs are in {cluster.state / 'logs'}"
    if set(PROCESSES) <= set(running):
        yield f"  server      {cluster.server}, Kubernetes {binaries.KUBERNETES}"
        try:
            yield from _nodes(cluster)
        except ApiError as failure:
            yield f"  nodes       {failure}"


def _nodes(cluster: Cluster) -> Iterator[str]:
    client = cluster.client()
    nodes = client.get("/api/v1/nodes")["items"]
    pods = client.get("/api/v1/pods")["items"]
    ready = [one["metadata"]["name"] for one in nodes if kwok.ready(one)]
    gpus = sum(int(one["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) for one in nodes)
    phases = [pod["status"].get("phase", "Unknown") for pod in pods]
    counts = ", ".join(f"{phases.count(phase)} {phase}" for phase in sorted(set(phases)))
    yield f"  nodes       {len(ready)} of {len(nodes)} ready, {gpus} fake GPUs; pods: {counts or 'none'}"


def _images(name: str) -> Iterator[str]:
    registry = Registry(node.find(name)[1].facts.registry)
    yield f"  registry    {registry.host}"
    try:
        images = registry.images()
    except ClusterError:
        return
    repositories = [image.rpartition(":")[0] for image in images]
    builds = [f"{name} ({repositories.count(name)})" for name in sorted(set(repositories))]
    yield f"  images      {', '.join(builds)}; 'load' prints the references of the newest"


def _cache() -> Iterator[str]:
    folder = binaries.bin_dir()
    built = [name for name in binaries.RECIPES if (folder / name).exists()]
    yield f"programs      {', '.join(built) or 'none built yet'} in {folder}"
    for part in ("bin", "buildah"):
        yield f"cache         {size(cache_dir() / part)} in {cache_dir() / part}"


def size(folder: Path) -> str:
    """Return the disk that a folder uses, such as `6.3 GB`."""
    return _size(used(folder))


def _size(total: int) -> str:
    return f"{total / 1e9:.1f} GB" if total >= 1e8 else f"{total / 1e6:.0f} MB"


def used(folder: Path) -> int:
    """Return the bytes of disk that a folder uses; mounts in it do not count."""
    total, seen = 0, set()
    device = folder.stat().st_dev if folder.exists() else None
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if _device(Path(parent, name)) == device]
        for name in files:
            with_stat = _stat(Path(parent, name))
            if with_stat and with_stat.st_ino not in seen:
                seen.add(with_stat.st_ino)
                total += with_stat.st_blocks * 512
    return total


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def _device(path: Path) -> int | None:
    found = _stat(path)
    return found.st_dev if found else None
