"""Background thread that runs one job at a time and hands its result or error back to the caller."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Writer(Generic[T]):
    """Runs at most one job; `collect` returns its result or raises its error in the calling thread."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer")
        self._job: Future[T] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a job is running."""
        return self._job is not None and not self._job.done()

    def start(self, job: Callable[[], T]) -> None:
        """Start a job; the previous one must have been collected."""
        assert self._job is None, "one job at a time"
        self._job = self._executor.submit(job)

    def collect(self, *, wait: bool) -> T | None:
        """Return the result of the job once; None if there is no job or it is still running.

        Args:
            wait: Block until the job has ended.
        """
        if self._job is None or (self.is_busy and not wait):
            return None
        job, self._job = self._job, None
        try:
            return job.result()
        finally:
            del job  # its error references this frame: a cycle that would keep the model and its files alive

    def close(self) -> None:
        """Stop the thread after its job."""
        self._executor.shutdown()
