"""Workers: take a key, reconcile it, say how it went."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from trainyard_crds import logs
from trainyard_kube.errors import ConflictError, KubeError
from trainyard_operator.errors import OperatorError
from trainyard_operator.kube.store import Key
from trainyard_operator.metrics import Metrics
from trainyard_operator.reconcile.work_queue import Result, WorkQueue

logger = logging.getLogger(__name__)


class Workers:
    """What each worker shares.

    Args:
        queue: Where keys come from.
        reconcile: What is done for a key.
        metrics: Where it is counted.
    """

    def __init__(self, queue: WorkQueue[Key], reconcile: Callable[[Key], Awaitable[Result]], metrics: Metrics) -> None:
        self._queue, self._reconcile, self._metrics = queue, reconcile, metrics

    async def run(self) -> None:
        """Work for ever; a failure of one key delays that key only."""
        while True:
            key = await self._queue.get()
            with logs.about(key.namespace, key.name):
                await self._work(key)
            await asyncio.sleep(0)  # a thousand keys that need no request must not keep an answer waiting

    async def _work(self, key: Key) -> None:
        result = Result(failed=True)
        try:
            with self._metrics.durations.time():
                result = await self._reconcile(key)
        except ConflictError as error:
            # The Gateway or the Job controller wrote at the same time; what changed has been read again.
            logger.debug("%s", error)
        except (OperatorError, KubeError) as error:
            self._count(error)
            logger.warning("will be tried again: %s", error)
        except Exception as error:  # a defect in one job's handling must not stop the others
            self._count(error)
            logger.exception("unexpected error, will be tried again")
        finally:
            self._queue.done(key, result)

    def _count(self, error: Exception) -> None:
        self._metrics.errors.labels(type(error).__name__).inc()
