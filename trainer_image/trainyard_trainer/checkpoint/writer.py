"""One thread that does one job at a time, and tells the thread that gave it how the job ended."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Writer(Generic[T]):
    """At most one job is in flight; whatever it raises is raised by `collect`, in the thread that asks."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="checkpoint-writer")
        self._job: Future[T] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a job is being done."""
        return self._job is not None and not self._job.done()

    def start(self, job: Callable[[], T]) -> None:
        """Let the thread do a job; the one before was taken."""
        assert self._job is None, "one job at a time"
        self._job = self._executor.submit(job)

    def collect(self, *, wait: bool) -> T | None:
        """The result of the job, once; None when there is none, or none yet.

        Args:
            wait: Wait until the job has ended.
        """
        if self._job is None or (self.is_busy and not wait):
            return None
        job, self._job = self._job, None
        try:
            return job.result()
        finally:
            del job  # its error would know this frame, which knows the job: a circle that keeps model and files

    def close(self) -> None:
        """End the thread, after its job."""
        self._executor.shutdown()
