"""The command line: `python3 hack/cluster up|down|status|disk|load|kubeconfig|build`."""

import argparse
import sys
from collections.abc import Sequence

from cluster import api, binaries, images, kind, node, settings, status
from cluster.errors import ClusterError
from cluster.paths import cluster_dir
from cluster.shell import say
from trainyard_kube.errors import ApiError

_DESCRIPTION = """A real Kubernetes on this machine: `up` starts a whole node (kind where Docker answers, a bare node
as root otherwise), `up --api-only` a control plane alone, which needs no root. State survives `down`."""
_TIERS = {
    "api": (*binaries.API, "kwok"),
    "node": (*binaries.NODE, "helm"),
    "kueue": (*binaries.API, "kwok", "helm", "kueue"),
}


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status: 0 done, 1 failed, 2 wrong arguments, 130 interrupted."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ClusterError, ApiError) as failure:
        print(f"cluster: error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command continues; 'down' stops what runs.")
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="hack/cluster", description=_DESCRIPTION)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="start a cluster, or find it running; prints its kubeconfig")
    up.add_argument("--api-only", action="store_true", help="the control plane alone, without a node")
    up.add_argument("--kwok", type=_count, default=0, metavar="N", help="with --api-only: N fake nodes of 8 fake GPUs")
    up.add_argument("--fake-gpus", type=_count, metavar="N", help="let the real node pretend to have N GPUs")
    _with_name(up, "node, or api with --api-only").set_defaults(run=_up)

    down = commands.add_parser("down", help="stop a cluster; what it stored stays")
    down.add_argument("--purge", action="store_true", help="delete what it stored, too: objects, volumes, images")
    _with_name(down, "node and api").set_defaults(run=_down)

    reboot = commands.add_parser("reboot", help="power-cycle the node: kill all its processes and pods, then start it")
    _with_name(reboot, "node").set_defaults(run=lambda arguments: node.reboot(arguments.name or "node"))

    commands.add_parser("status", help="show what runs").set_defaults(run=lambda _: print(status.report()))
    commands.add_parser("disk", help="print the disk used").set_defaults(run=lambda _: print(status.disk()))

    load = commands.add_parser("load", help="build the images and push them where the node pulls them")
    load.add_argument("image", nargs="?", choices=[*images.IMAGES, "all"], default="all")
    _with_name(load, "node").set_defaults(run=_load)

    kubeconfig = commands.add_parser("kubeconfig", help="print the path of a cluster's kubeconfig")
    _with_name(kubeconfig, "node").set_defaults(run=_kubeconfig)

    build = commands.add_parser("build", help="build the programs of a tier and print their folder")
    build.add_argument("tier", choices=_TIERS)
    build.set_defaults(run=lambda arguments: print(binaries.ensure(_TIERS[arguments.tier])))
    return top


def _with_name(command: argparse.ArgumentParser, default: str) -> argparse.ArgumentParser:
    command.add_argument("--name", help=f"the cluster's name (default: {default})")
    return command


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1000")
    return number


def _up(arguments: argparse.Namespace) -> None:
    if arguments.kwok and not arguments.api_only:
        raise ClusterError("--kwok adds fake nodes to a control plane without a real one: use it with --api-only.")
    if arguments.api_only and arguments.fake_gpus:
        raise ClusterError("--fake-gpus is for a real node; with --api-only use --kwok N, whose nodes have 8 each.")
    name = arguments.name or ("api" if arguments.api_only else "node")
    cluster_dir(name)  # reject a bad name before building anything
    if arguments.api_only:
        print(api.start(name, kwok_nodes=arguments.kwok).kubeconfig)
    elif kind.available():
        print(kind.start(name, arguments.fake_gpus))
    else:
        print(node.start(name, fake_gpus=arguments.fake_gpus)[0].kubeconfig)


def _down(arguments: argparse.Namespace) -> None:
    for name in [arguments.name] if arguments.name else ["node", "api"]:
        found = settings.load(cluster_dir(name))
        if found is None:
            continue
        if found.tier == "kind":
            kind.stop(name, arguments.purge)
        elif found.tier == "node":
            node.stop(name, arguments.purge)
        else:
            api.stop(name, arguments.purge)
        say(f"cluster '{name}' is down" + (" and deleted" if arguments.purge else "; 'up' starts it again as it was"))


def _load(arguments: argparse.Namespace) -> None:
    name = arguments.name or "node"
    wanted = list(images.IMAGES) if arguments.image == "all" else [arguments.image]
    found = settings.load(cluster_dir(name))
    if found and found.tier == "kind":
        references = kind.load(name, wanted)
    else:
        _, machine = node.find(name)
        builds = images.load(wanted, machine.facts.registry)
        machine.forget_images(build.reference for build in builds.values() if build.new_dependencies)
        references = {image: build.reference for image, build in builds.items()}
    for image, reference in references.items():
        print(f"{image.upper()}_IMAGE={reference}")


def _kubeconfig(arguments: argparse.Namespace) -> None:
    path = cluster_dir(arguments.name or "node") / "kubeconfig"
    if not path.exists():
        raise ClusterError(f"cluster '{arguments.name or 'node'}' has no kubeconfig yet: start it by 'up' first.")
    print(path)
