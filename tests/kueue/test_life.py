"""Jobs under Kueue itself: what waits, starts, saves for others, resumes and ends, and what the status says of it."""

from __future__ import annotations

import json

from tests.api.gateway_support import until
from tests.api.operator_support import Operator
from tests.kueue.yard import QUEUE, Yard


def test_a_job_waits_with_a_place_and_a_reason_is_let_in_and_ends(team: Yard, operator: Operator) -> None:
    first = team.submit("first", gpus=2)
    first.runs()
    template = first.child()["spec"]["template"]["spec"]
    assert template["nodeSelector"] == {"type": "kwok"}, "of the ResourceFlavor"
    assert template["tolerations"][0]["key"] == "kwok.x-k8s.io/node"
    assert first.condition("Admitted")["status"] == "True"
    second, third = team.submit("second"), team.submit("third", priority=4)
    waiting = second.waits("WaitingForQuota")
    assert waiting["message"] == (
        "Kueue lets it wait: couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in "
        "flavor gpu-nodes, 1 more needed."
    )
    assert second.condition("Admitted")["status"] == "False"
    until(lambda: third.status()["queue"].get("position") == 2, 30)
    queue = second.status()["queue"]
    assert (queue["pool"], queue["position"], queue["length"]) == (QUEUE, 1, 2)
    shown = json.loads(operator.get("/queue")[1])
    own = [row for row in shown["waiting"] if row["namespace"] == team.namespace]
    assert [(row["name"], row["position"]) for row in own] == [("second", 1), ("third", 2)]
    first.succeed()
    second.runs()
    third.runs()
    assert second.status()["queue"].keys() == {"pool", "enqueuedAt"}
    second.succeed()
    third.succeed()
