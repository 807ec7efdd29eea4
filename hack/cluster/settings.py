"""Settings of a cluster that are kept between runs."""

import contextlib
import dataclasses
import ipaddress
import json
from pathlib import Path
from typing import Literal

from cluster.errors import ClusterError
from cluster.shell import write_atomically

Tier = Literal["api", "node", "kind"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The choices made when a cluster was first started.

    Attributes:
        tier: `api` is a control plane alone, `node` a whole bare node, `kind` a node in a Docker container.
        pods: Address range of the pods of a bare node.
        services: Address range of the services.
        fake_gpus: GPUs that the node pretends to have.
    """

    tier: Tier
    pods: str = ""
    services: str = "10.215.0.0/16"
    fake_gpus: int = 0

    @property
    def gateway(self) -> ipaddress.IPv4Address | None:
        """The machine's address on the pods' bridge; None without a bare node."""
        return ipaddress.IPv4Network(self.pods)[1] if self.pods else None


def load(state: Path) -> Settings | None:
    """Return what the cluster in `state` remembers, or None when there is none."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Settings(**json.loads((state / "cluster.json").read_text()))
    return None


def save(state: Path, settings: Settings) -> Settings:
    """Remember the settings and return them."""
    write_atomically(state / "cluster.json", json.dumps(dataclasses.asdict(settings), indent=1))
    return settings


def require_tier(state: Path, tier: Tier) -> None:
    """Check that the cluster in `state` is new or of this tier.

    Raises:
        ClusterError: it is of another tier.
    """
    found = load(state)
    if found and found.tier != tier:
        raise ClusterError(
            f"cluster '{state.name}' exists as '{found.tier}', not as '{tier}': choose another --name, "
            f"or remove it by 'down --purge --name {state.name}'."
        )
