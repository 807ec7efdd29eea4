"""The builtin controller under any order of events: late Jobs, pods on other nodes than planned, restarts."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.queueing.queue_fixture import QueueFixture
from tests.unit.operator.queue.state_model import GPU
from trainyard_operator.queue.inventory import Holder
from trainyard_operator.queue.pool import Node
from trainyard_operator.trainingjob.resources import job_key

NODES, SIZE = 3, 4


class Life(RuleBasedStateMachine):
    """Admitted jobs always fit beside running ones; sizes of 1, 2 and 4 divide one another."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = QueueFixture(SIZE)
        self.gpus: dict[str, int] = {}
        self.made: set[str] = set()
        self.bound: dict[str, int] = {}
        self.over: set[str] = set()
        self.line: list[str] = []
        self._put_nodes()

    def _put_nodes(self) -> None:
        for number in range(NODES):
            self.queue.controller.inventory.put_node(Node(name=f"n{number}", allocatable={GPU: SIZE}))
        for name, node in self.bound.items():
            self._put(name, node)

    def _put(self, name: str, node: int) -> None:
        held = Holder(name, name, f"n{node}", {GPU: self.gpus[name]}, f"team/{name}")
        self.queue.controller.inventory.put_pod(name, held)

    def _admitted(self) -> list[str]:
        return [name for name in self.gpus if name not in self.over and self.queue.decision(name).admitted]

    def _left(self) -> list[int]:
        left = [SIZE] * NODES
        for name, node in self.bound.items():
            left[node] -= self.gpus[name]
        return left

    @rule(gpus=st.sampled_from([1, 1, 2, 4]))
    def submit(self, gpus: int) -> None:
        name = f"j{len(self.gpus):03}"
        self.gpus[name] = gpus
        self.queue.submit(name, gpus)

    @rule()
    def cycle(self) -> None:
        before = set(self._admitted())
        self.queue.cycle(1.0)
        assert before <= set(self._admitted()), "an admission is not withdrawn"
        waiting = [name for name in self.gpus if name not in self.over and not self.queue.decision(name).admitted]
        new = [name for name in self._admitted() if name not in before]
        assert not new or not waiting or max(new) < min(waiting), "first come, first served"

    @precondition(lambda self: any(name not in self.made for name in self._admitted()))
    @rule(data=st.data())
    def make(self, data: st.DataObject) -> None:
        """Create the Job of an admitted job; its pod is not bound yet."""
        name = data.draw(st.sampled_from([name for name in self._admitted() if name not in self.made]))
        child = {"metadata": {"creationTimestamp": "2026-01-02T10:00:00Z"}, "spec": {"suspend": False}, "status": {}}
        self.queue.change(name, child=child)
        self.made.add(name)

    @precondition(lambda self: self.made - self.bound.keys() - self.over)
    @rule(data=st.data())
    def bind(self, data: st.DataObject) -> None:
        """Bind the pod to the planned node if it fits there, else by best fit."""
        name = data.draw(st.sampled_from(sorted(self.made - self.bound.keys() - self.over)))
        planned = self.queue.decision(name).nodes
        room = [node for node, left in enumerate(self._left()) if left >= self.gpus[name]]
        preferred = [node for node in room if f"n{node}" in planned]
        best = min(room, key=lambda node: (self._left()[node], node))
        self.bound[name] = preferred[0] if preferred else best
        self._put(name, self.bound[name])

    @precondition(lambda self: bool(self.bound))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.bound)))
        del self.bound[name]
        self.over.add(name)
        self.queue.end(name)
        self.queue.change(name, status={"phase": "Succeeded"})

    @precondition(lambda self: bool(self.gpus))
    @rule(data=st.data())
    def repeat_event(self, data: st.DataObject) -> None:
        """An event without a change."""
        self.queue.controller.mark_dirty(job_key("team", data.draw(st.sampled_from(sorted(self.gpus)))))

    @rule()
    def kill(self) -> None:
        """Restart the operator; the Jobs remain."""
        self.queue.restart()
        self._put_nodes()

    @invariant()
    def fits(self) -> None:
        left = self._left()
        assert min(left) >= 0
        unbound = {*self._admitted(), *(self.made - self.over)} - self.bound.keys()
        for gpus in sorted((self.gpus[name] for name in unbound), reverse=True):
            node = next((node for node, count in enumerate(left) if count >= gpus), None)
            assert node is not None, f"{sorted(unbound)} were admitted, and {left} is free"
            left[node] -= gpus


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40)
