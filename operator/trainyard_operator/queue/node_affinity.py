"""Requirements on the labels of nodes, by the scheduler's rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from trainyard_crds.placement import NodeRequirement


class Requirement(NamedTuple):
    """A requirement on one label.

    Attributes:
        key: Key of the label.
        operator: In, NotIn, Exists or DoesNotExist.
        values: Values of In and NotIn, sorted.
    """

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        values = f" ({', '.join(self.values)})" if self.values else ""
        return f"{self.key} {self.operator}{values}"

    def is_met(self, labels: Mapping[str, str]) -> bool:
        """Return whether a node with these labels meets the requirement; one without the label meets NotIn."""
        if self.operator == "In":
            return labels.get(self.key) in self.values
        if self.operator == "NotIn":
            return labels.get(self.key) not in self.values
        return (self.key in labels) == (self.operator == "Exists")


def requirements_of(entries: Iterable[NodeRequirement]) -> tuple[Requirement, ...]:
    """Return the requirements of `spec.resources.nodeAffinity` in an order that does not depend on the spec's."""
    found = {Requirement(entry.key, entry.operator, tuple(sorted(set(entry.values or [])))) for entry in entries}
    return tuple(sorted(found))
