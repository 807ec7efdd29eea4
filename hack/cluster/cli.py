"""The command line: `python3 hack/cluster up|down|status|load|kubeconfig`."""

import argparse
import sys
from collections.abc import Sequence

from cluster import api
from cluster.errors import ClusterError
from cluster.paths import cluster_dir
from cluster.shell import say


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status: 0 done, 1 failed, 2 wrong arguments, 130 interrupted."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except ClusterError as failure:
        print(f"cluster: error: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here, 'down' takes down what runs.")
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="hack/cluster", description="A real Kubernetes on this machine.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start a cluster, or find it running")
    up.add_argument("--api-only", action="store_true", help="the control plane alone, without a node")
    up.add_argument("--kwok", type=int, default=0, metavar="N", help="add N fake nodes with 8 fake GPUs each")
    up.set_defaults(run=_up)
    down = commands.add_parser("down", help="stop a cluster")
    down.add_argument("--purge", action="store_true", help="delete everything it stored, too")
    down.set_defaults(run=_down)
    kubeconfig = commands.add_parser("kubeconfig", help="print the path of a cluster's kubeconfig")
    kubeconfig.set_defaults(run=_kubeconfig)
    for command in (up, down, kubeconfig):
        command.add_argument("--name", default="api", help="the cluster's name (default: %(default)s)")
    return top


def _up(arguments: argparse.Namespace) -> None:
    cluster = api.start(arguments.name, kwok_nodes=arguments.kwok)
    print(cluster.kubeconfig)


def _down(arguments: argparse.Namespace) -> None:
    api.stop(arguments.name, arguments.purge)


def _kubeconfig(arguments: argparse.Namespace) -> None:
    print(cluster_dir(arguments.name) / "kubeconfig")
