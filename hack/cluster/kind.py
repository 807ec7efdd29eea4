"""The node on a machine with Docker: kind, with a local registry as its documentation describes.

Written for machines with a Docker engine and not yet run on one.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cluster import api, binaries, context, images, ports, settings
from cluster.client import Object
from cluster.errors import ImageError, StartError
from cluster.paths import ROOT, cluster_dir
from cluster.settings import Settings
from cluster.shell import run, say, succeeds, write_atomically

_NODE_IMAGE = f"kindest/node:v{binaries.KUBERNETES}"
_REGISTRY_IMAGE = "registry:3"
_HOSTS = "/etc/containerd/certs.d"


def available() -> bool:
    """Return whether a Docker engine answers."""
    return succeeds(["docker", "info"])


def start(name: str, fake_gpus: int | None = None) -> Path:
    """Start a kind cluster with a local registry, or find it, and return its kubeconfig.

    Raises:
        ClusterError: Docker or kind failed.
    """
    folder = binaries.ensure(["kind", "kubectl", "helm"])
    with api.working_on(name) as state:
        settings.require_tier(state, "kind")
        found = settings.load(state) or Settings("kind")
        settings.save(state, Settings("kind", fake_gpus=found.fake_gpus if fake_gpus is None else fake_gpus))
        port = ports.reserve(state, ["registry"], keep=_runs(f"{name}-registry"))["registry"]
        kubeconfig = state / "kubeconfig"
        _start_registry(f"{name}-registry", port)
        if name not in run([folder / "kind", "get", "clusters"], error=StartError).split():
            say(f"creating kind cluster '{name}' (1 to 2 min; the node image is 1 GB)")
            config = write_config(state)
            create = [
                "create",
                "cluster",
                f"--name={name}",
                f"--config={config}",
                f"--image={_NODE_IMAGE}",
                "--wait=3m",
            ]
            run([folder / "kind", *create, f"--kubeconfig={kubeconfig}"], error=StartError)
        run(["docker", "start", f"{name}-control-plane"], error=StartError)
        _connect(name, port)
        _offer_gpus(folder / "kubectl", kubeconfig, settings.load(state) or found)
    return kubeconfig


def stop(name: str, purge: bool) -> None:
    """Stop the containers of a kind cluster; with `purge` delete them and everything they stored.

    Raises:
        ClusterError: Docker or kind failed.
    """
    state = cluster_dir(name)
    with api.working_on(name):
        containers = [container for container in (f"{name}-control-plane", f"{name}-registry") if _exists(container)]
        for container in containers:
            run(["docker", "stop", container], error=StartError)
        if purge:
            folder = binaries.ensure(["kind"])
            run([folder / "kind", "delete", "cluster", f"--name={name}"], error=StartError)
            if _exists(f"{name}-registry"):
                run(["docker", "rm", "--volumes", f"{name}-registry"], error=StartError)
            shutil.rmtree(state)


def load(name: str, wanted: Iterable[str]) -> dict[str, str]:
    """Build images with Docker, push them to the local registry and return the reference of each.

    Raises:
        ClusterError: a build or push failed.
    """
    host = f"localhost:{ports.load(cluster_dir(name) / 'ports.json')['registry']}"
    references = {}
    for image in (images.IMAGES[key] for key in wanted):
        with tempfile.TemporaryDirectory(prefix="trainyard-context.") as folder:
            staged = context.stage(ROOT, image.dockerfile, Path(folder) / "context")
            reference = f"{host}/trainyard/{image.name}:{staged.tag}"
            say(f"building {reference} with Docker (first time about {image.minutes} min)")
            build = ["docker", "build", "--quiet", f"--file={staged.folder / image.dockerfile}", f"--tag={reference}"]
            run([*build, staged.folder], env={"DOCKER_BUILDKIT": "1"}, error=ImageError)
            run(["docker", "push", "--quiet", reference], error=ImageError)
            references[image.name] = reference
    return references


def config() -> Object:
    """Return kind's configuration: containerd reads registries from a folder that `_connect` fills."""
    patch = f'[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "{_HOSTS}"\n'
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{"role": "control-plane"}],
        "containerdConfigPatches": [patch],
    }


def write_config(state: Path) -> Path:
    """Write kind's configuration and return its path."""
    path = state / "kind.json"
    write_atomically(path, json.dumps(config(), indent=1))
    return path


def _start_registry(container: str, port: int) -> None:
    if _exists(container):
        run(["docker", "start", container], error=StartError)
        return
    publish = f"--publish=127.0.0.1:{port}:5000"
    run(
        ["docker", "run", "--detach", "--restart=no", publish, f"--name={container}", _REGISTRY_IMAGE], error=StartError
    )


def _connect(name: str, port: int) -> None:
    attached = run(["docker", "inspect", "--format={{json .NetworkSettings.Networks}}", f"{name}-registry"])
    if "kind" not in json.loads(attached):
        run(["docker", "network", "connect", "kind", f"{name}-registry"], error=StartError)
    folder = f"{_HOSTS}/localhost:{port}"
    hosts = f'[host."http://{name}-registry:5000"]\n'
    run(["docker", "exec", f"{name}-control-plane", "mkdir", "-p", folder], error=StartError)
    write = ["docker", "exec", "-i", f"{name}-control-plane", "cp", "/dev/stdin", f"{folder}/hosts.toml"]
    run(write, stdin=hosts, error=StartError)


def _offer_gpus(kubectl: Path, kubeconfig: Path, found: Settings) -> None:
    gpus = {"nvidia.com/gpu": str(found.fake_gpus) if found.fake_gpus else None}
    patch = json.dumps({"status": {"capacity": gpus, "allocatable": gpus}})
    node = f"{kubeconfig.parent.name}-control-plane"
    target = [str(kubectl), f"--kubeconfig={kubeconfig}", "patch", "node", node, "--subresource=status", "--type=merge"]
    run([*target, f"--patch={patch}"], error=StartError)


def _exists(container: str) -> bool:
    return succeeds(["docker", "inspect", container])


def _runs(container: str) -> bool:
    return _exists(container) and run(["docker", "inspect", "--format={{.State.Running}}", container]).strip() == "true"
