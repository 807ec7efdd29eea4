"""Requirements on node labels, by the scheduler's rules."""

from __future__ import annotations

import pytest

from trainyard_operator.queue.node_affinity import Requirement

LABELS = {"zone": "a", "empty": ""}


@pytest.mark.parametrize(
    ("requirement", "is_met"),
    [
        (Requirement("zone", "In", ("a", "b")), True),
        (Requirement("zone", "In", ("b",)), False),
        (Requirement("rack", "In", ("a",)), False),
        (Requirement("empty", "In", ("",)), True),
        (Requirement("rack", "In", ("",)), False),
        (Requirement("zone", "NotIn", ("a",)), False),
        (Requirement("zone", "NotIn", ("b",)), True),
        (Requirement("rack", "NotIn", ("a",)), True),
        (Requirement("zone", "Exists"), True),
        (Requirement("empty", "Exists"), True),
        (Requirement("rack", "Exists"), False),
        (Requirement("zone", "DoesNotExist"), False),
        (Requirement("rack", "DoesNotExist"), True),
    ],
)
def test_requirement_is_met_as_the_scheduler_does(requirement: Requirement, is_met: bool) -> None:
    assert requirement.is_met(LABELS) is is_met
