"""The node's bridge and the firewall rules that Kubernetes leaves behind."""

import ipaddress
import json
from collections.abc import Iterable
from pathlib import Path

from cluster.errors import StartError, ToolError
from cluster.nodeconfig import BRIDGE
from cluster.shell import run, say, succeeds

# Pairs of pod and service ranges; the second octets are ones that container engines do not choose by default.
_RANGES = [(f"10.{second}.0.0/16", f"10.{second + 1}.0.0/16") for second in (214, 204, 194, 184)]
_TABLES = ("nat", "filter", "mangle")


def choose_ranges(routes: Iterable[str]) -> tuple[ipaddress.IPv4Network, ipaddress.IPv4Network]:
    """Return address ranges for pods and services that no route of the machine overlaps.

    Raises:
        StartError: all candidates are in use.
    """
    used = [ipaddress.IPv4Network(route, strict=False) for route in routes]
    for pair in _RANGES:
        pods, services = map(ipaddress.IPv4Network, pair)
        if not any(route.overlaps(pods) or route.overlaps(services) for route in used):
            return pods, services
    raise StartError(
        f"all address ranges for pods are in use on this machine: {', '.join(pods for pods, _ in _RANGES)}."
    )


def routes() -> list[str]:
    """Return the destinations of the machine's IPv4 routes, without the default route and our own bridge."""
    table = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]")
    return [
        route["dst"]
        for route in table
        if route["dst"] != "default" and route.get("dev") != BRIDGE and route.get("type") != "broadcast"
    ]


def add_bridge(gateway: ipaddress.IPv4Address, prefix: int) -> None:
    """Make the pods' bridge with the gateway's address and let the machine forward packets."""
    if not succeeds(["ip", "link", "show", BRIDGE]):
        run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "addr", "replace", f"{gateway}/{prefix}", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def remove_bridge() -> None:
    """Remove the pods' bridge if it exists."""
    if succeeds(["ip", "link", "show", BRIDGE]):
        run(["ip", "link", "delete", BRIDGE])


def remove_namespaces(names: Iterable[str]) -> None:
    """Remove named network namespaces and, with them, the pods' ends of their cables."""
    for name in names:
        if (Path("/run/netns") / name).exists():
            run(["ip", "netns", "delete", name])


def has_foreign_rules() -> bool:
    """Return whether some Kubernetes has its chains in this network namespace."""
    return any(line.startswith(":KUBE-SERVICES") for line in run(["iptables-save", "-t", "nat"]).splitlines())


def remove_rules() -> None:
    """Remove the chains of kube-proxy, the kubelet and our CNI network from the firewall."""
    for family in ("iptables", "ip6tables"):
        for table in _TABLES:
            try:
                script = removal(run([f"{family}-save", "-t", table]), table)
                if script:
                    run([f"{family}-restore", "--noflush"], stdin=script)
            except ToolError as failure:
                say(f"warning: firewall rules of table {table} may be left: {failure}")


def removal(saved: str, table: str) -> str:
    """Return the input for iptables-restore that removes Kubernetes's chains and our CNI network's.

    Args:
        saved: Output of iptables-save for the table.
        table: Its name.
    """
    lines = saved.splitlines()
    chains = [line[1:].split()[0] for line in lines if line.startswith(":")]
    rules = [line for line in lines if line.startswith("-A ")]
    ours = {chain for chain in chains if chain.startswith("KUBE-")}
    ours |= {chain for rule in rules if f'name: \\"{BRIDGE}\\"' in rule for chain in _jumps(rule) if chain in chains}
    deletions = [
        rule.replace("-A ", "-D ", 1)
        for rule in rules
        if rule.split()[1] not in ours and (ours & set(_jumps(rule)) or f'name: \\"{BRIDGE}\\"' in rule)
    ]
    if not ours and not deletions:
        return ""
    # Declaring a chain flushes it, which removes the references between the chains before they are deleted.
    emptied = [f":{chain} - [0:0]" for chain in sorted(ours)]
    return "\n".join([f"*{table}", *emptied, *deletions, *(f"-X {chain}" for chain in sorted(ours)), "COMMIT", ""])


def _jumps(rule: str) -> list[str]:
    fields = rule.split()
    return [fields[index + 1] for index, field in enumerate(fields[:-1]) if field in ("-j", "-g")]
