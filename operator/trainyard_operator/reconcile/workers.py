"""Workers: take a key from the queue, reconcile it, hand back the result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from trainyard_crds import logs
from trainyard_kube.errors import ConflictError, KubeError
from trainyard_kube.resource import Key
from trainyard_operator.errors import OperatorError
from trainyard_operator.metrics import Metrics
from trainyard_operator.reconcile.work_queue import Result, WorkQueue

logger = logging.getLogger(__name__)


class Workers:
    """The part that all workers share.

    Args:
        queue: Source of keys.
        reconcile: Reconciles one key.
        metrics: Counts reconciles and errors.
    """

    def __init__(self, queue: WorkQueue[Key], reconcile: Callable[[Key], Awaitable[Result]], metrics: Metrics) -> None:
        self._queue, self._reconcile, self._metrics = queue, reconcile, metrics

    async def run(self) -> None:
        """Reconcile keys until cancelled; a failure of one key delays that key only."""
        while True:
            key = await self._queue.get()
            with logs.about(key.namespace, key.name):
                await self._work(key)
            await asyncio.sleep(0)  # many keys in a row that need no request must not block the event loop

    async def _work(self, key: Key) -> None:
        result = Result(failed=True)
        try:
            with self._metrics.durations.time():
                result = await self._reconcile(key)
        except ConflictError as error:
            # The gateway or the Job controller wrote at the same time; the newest version was ingested.
            logger.debug("%s", error)
        except (OperatorError, KubeError) as error:
            self._count(error)
            logger.warning("the reconcile failed and is retried: %s", error)
        except Exception as error:  # a defect in the handling of one object must not stop the others
            self._count(error)
            logger.exception("unexpected error, the reconcile is retried")
        finally:
            self._queue.done(key, result)

    def _count(self, error: Exception) -> None:
        self._metrics.errors.labels(type(error).__name__).inc()
