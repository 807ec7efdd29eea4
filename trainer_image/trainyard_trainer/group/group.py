"""What the processes of a group agree on and share; `Group` itself is a group of one, which needs nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from trainyard_trainer.errors import StopRequested

T = TypeVar("T")
Poll = Callable[[], None]
"""Raises StopRequested once this process was asked to stop."""


class Group:
    """The processes that train one model. All of them make the same calls in the same order."""

    rank = 0
    world_size = 1
    is_sharded = False
    """Whether the model is spread over the processes, so that each pass through it needs all of them."""

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes; on the host, no GPU is waited for."""
        return list(values)

    def all_gather(self, value: Any) -> list[Any]:
        """The JSON values of all processes, by their ranks."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """The first process's JSON value."""
        return self.all_gather(value if self.is_main_process else None)[0]

    @contextmanager
    def main_process_first(self, poll: Poll, told: dict[str, str] | None = None) -> Iterator[None]:
        """Let the first process do something, then the first one of each other pod, then all others.

        Each finds on its disk what the one before it left: some directories are the pod's, some are the group's.

        Args:
            poll: Called while waiting; may raise.
            told: What the others are to have heard of the first process before it is their turn; theirs is updated.
        """
        yield

    def shard(self, model: nn.Module) -> None:
        """Spread a model's parameters over the processes, its gradients and optimizer with them."""

    def full_tensor(self, tensor: Tensor) -> Tensor:
        """A tensor of a model or an optimizer in one piece."""
        return tensor

    def reduce_gradients(self, parameters: Sequence[nn.Parameter], *, is_complete: bool) -> None:
        """Sum the gradients over all processes, at the end of a step.

        Args:
            parameters: What is trained.
            is_complete: Whether this process made all its passes.

        Raises:
            StopRequested: One of the processes did not; on all of them.
        """
        self._agree(is_stopping=not is_complete)

    def partition(self, items: Sequence[T]) -> list[tuple[T, bool]]:
        """What falls to this process of the passes to be made, and whether it counts.

        Where a pass needs all processes, those with less to do repeat one that does not count.
        """
        own = [(item, True) for item in items[self.rank :: self.world_size]]
        rounds = -(-len(items) // self.world_size) if self.is_sharded else len(own)
        return own + [(items[0], False)] * (rounds - len(own))

    def is_stopping(self, poll: Poll) -> bool:
        """Whether to leave before the next pass: all at once where it needs all, else each for itself."""
        asked = _is_asked(poll)
        return self.sum([asked])[0] > 0 if self.is_sharded else asked

    def weighted_mean(self, items: Sequence[T], measure: Callable[[T], tuple[float, float]], poll: Poll) -> float:
        """A mean over items that are shared out; the same for all processes.

        Args:
            items: What is measured, at least one.
            measure: Gives an item's sum and what it is to be divided by.
            poll: Called before each.

        Raises:
            StopRequested: One of the processes was asked to stop; on all of them.
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
        """The sums of values; whether to stop is agreed along with them.

        Raises:
            StopRequested: One of the processes was asked to stop; on all of them.
        """
        stopping, *sums = self.sum([_is_asked(poll), *values])
        if stopping:
            raise StopRequested(_STOPPED)
        return sums

    def close(self) -> None:
        """Leave the group."""

    def _agree(self, *, is_stopping: bool) -> None:
        if self.sum([is_stopping])[0] > 0:
            raise StopRequested(_STOPPED)


_STOPPED = "Stopped on request."


def _is_asked(poll: Poll) -> bool:
    try:
        poll()
    except StopRequested:
        return True
    return False
