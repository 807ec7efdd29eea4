"""Collective operations of a group of processes; `Group` itself is a group of one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from trainyard_trainer.errors import StopRequested

T = TypeVar("T")
Poll = Callable[[], None]
"""Raises StopRequested once this process was requested to stop."""


class Group:
    """The processes that train one model; all of them must make the same calls in the same order."""

    rank = 0
    world_size = 1
    is_sharded = False
    """Whether the model is sharded, so that every forward pass involves all processes."""

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0, the process that writes and reports."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over all processes, on the CPU without GPU synchronization."""
        return list(values)

    def all_gather(self, value: Any) -> list[Any]:
        """Return the JSON values of all processes, by rank."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """Return the main process's JSON value."""
        return self.all_gather(value if self.is_main_process else None)[0]

    @contextmanager
    def main_process_first(self, poll: Poll, shared: dict[str, str] | None = None) -> Iterator[None]:
        """Run a block in the main process, then in the local main process of each other pod, then in all others.

        Each process finds the files of the one before it: some directories are local to the pod, some are shared.

        Args:
            poll: Called while waiting; may raise.
            shared: Values of the main process that the others receive before their turn; theirs are updated in place.
        """
        yield

    def shard(self, model: nn.Module) -> None:
        """Shard a model's parameters over the processes, and with them its gradients and optimizer states."""

    def full_tensor(self, tensor: Tensor) -> Tensor:
        """Return the full tensor of a model or optimizer."""
        return tensor

    def reduce_gradients(self, parameters: Sequence[nn.Parameter], *, is_complete: bool) -> None:
        """Sum the gradients over all processes at the end of a step.

        Args:
            parameters: Trained parameters.
            is_complete: Whether this process ran all its forward passes.

        Raises:
            StopRequested: A process did not; raised in all processes.
        """
        self._raise_if_stopping(is_stopping=not is_complete)

    def partition(self, items: Sequence[T]) -> list[tuple[T, bool]]:
        """Return this process's items, each with whether it counts.

        A pass through a sharded model involves all processes, so those with fewer items repeat one that does not count.
        """
        own = [(item, True) for item in items[self.rank :: self.world_size]]
        passes = -(-len(items) // self.world_size) if self.is_sharded else len(own)
        return own + [(items[0], False)] * (passes - len(own))

    def is_stopping(self, poll: Poll) -> bool:
        """Return whether to stop before the next pass: decided together for a sharded model, else per process."""
        requested = _is_stop_requested(poll)
        return self.sum([requested])[0] > 0 if self.is_sharded else requested

    def weighted_mean(self, items: Sequence[T], measure: Callable[[T], tuple[float, float]], poll: Poll) -> float:
        """Return the weighted mean over items that are partitioned over the processes; equal in all processes.

        Args:
            items: Items to measure, at least one.
            measure: Returns the weighted sum and the weight of an item.
            poll: Called before each item.

        Raises:
            StopRequested: A process was requested to stop; raised in all processes.
        """
        total, weight, stopping = 0.0, 0.0, False
        for item, counts in self.partition(items):
            if stopping := self.is_stopping(poll):
                break
            of_item, weight_of_item = measure(item)
            if counts:
                total, weight = total + of_item, weight + weight_of_item
        total, weight, stopped = self.sum([total, weight, stopping])
        if stopped:
            raise StopRequested(_STOPPED)
        return total / weight

    def check_stop(self, poll: Poll, *values: float) -> list[float]:
        """Return the sums of values over all processes, or stop all processes.

        Raises:
            StopRequested: A process was requested to stop; raised in all processes.
        """
        stopping, *sums = self.sum([_is_stop_requested(poll), *values])
        if stopping:
            raise StopRequested(_STOPPED)
        return sums

    def close(self) -> None:
        """Leave the group."""

    def _raise_if_stopping(self, *, is_stopping: bool) -> None:
        if self.sum([is_stopping])[0] > 0:
            raise StopRequested(_STOPPED)


_STOPPED = "Stopped on request."


def _is_stop_requested(poll: Poll) -> bool:
    try:
        poll()
    except StopRequested:
        return True
    return False
