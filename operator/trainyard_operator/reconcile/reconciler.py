"""Carries out the plans of one kind: the shell between pure decisions and the API server."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Generic

from trainyard_kube.client import KubeClient
from trainyard_kube.clock import ServerClock
from trainyard_kube.errors import ApiRefusedError, NotFoundError
from trainyard_kube.events import EventWriter
from trainyard_kube.paths import path
from trainyard_kube.resource import Key
from trainyard_operator.reconcile.children import Children
from trainyard_operator.reconcile.kind import Kind, ObservationT
from trainyard_operator.reconcile.lookup import Lookup
from trainyard_operator.reconcile.plan import Plan
from trainyard_operator.reconcile.refusals import is_webhook_down
from trainyard_operator.reconcile.status import StatusWriter
from trainyard_operator.reconcile.work_queue import Result

logger = logging.getLogger(__name__)


class Reconciler(Generic[ObservationT]):
    """Reconciles the objects of one kind, one key at a time.

    Args:
        kind: Observes and plans.
        kube: The API server.
        events: Records Events.
        clock: The time.
    """

    def __init__(self, kind: Kind[ObservationT], kube: KubeClient, events: EventWriter, clock: ServerClock) -> None:
        resources = {resource.plural: resource for resource in (kind.resource, *kind.related)}
        self._kind, self._kube, self._clock = kind, kube, clock
        self._lookup = Lookup(kube, resources, kind.lookups)
        self._children = Children(kube, resources, kind.uid_label)
        self._status = StatusWriter(kube, events, kind.resource, kind.untrusted_status)

    async def reconcile(self, key: Key) -> Result:
        """Reconcile one object.

        Raises:
            ApiError: a request failed in a way that may pass; try again later.
        """
        observed = self._kind.observe(key)
        if observed is None:
            return Result()
        plan, observed = await self._plan(key, observed)
        refusal = await self._children.create(plan.create) or await self._children.apply(plan.apply)
        if refusal is not None:
            logger.warning("%s", refusal.message, extra={"reason": refusal.reason})
            await self._write_replanned(replace(observed, refusal=refusal))
            return Result() if refusal.final else Result(failed=True)
        if plan.create:
            # The status follows in the next reconcile: in a burst every object gets its children first, and mostly
            # their first state is known by then, which saves a write.
            return Result(again_after=0.0)
        if (plan.patches or plan.delete) and not await self._is_current(observed):
            return Result(again_after=0.0)
        return await self._carry_out(observed, plan)

    async def _plan(self, key: Key, observed: ObservationT) -> tuple[Plan, ObservationT]:
        """Plan, after every look-up that it takes."""
        plan = self._kind.plan(observed, self._clock.now())
        while plan.need is not None:
            answers = {**observed.answers, plan.need: await self._lookup.answer(key.namespace, plan.need)}
            observed = replace(self._kind.observe(key) or observed, answers=answers)
            plan = self._kind.plan(observed, self._clock.now())
        return plan, observed

    async def _is_current(self, observed: ObservationT) -> bool:
        """Return whether the plan was made from the current generation: a stale cache must not change children."""
        resource, metadata = self._kind.resource, observed.obj["metadata"]
        try:
            current = await self._kube.get(path(resource.collection, observed.namespace, observed.name))
        except NotFoundError:
            resource.remove(observed.obj)
            return False
        if current["metadata"]["uid"] != observed.uid:
            resource.remove(observed.obj)
        resource.ingest(current)
        same: bool = current["metadata"].get("generation") == metadata.get("generation")
        return same and ("deletionTimestamp" in current["metadata"]) is observed.is_being_deleted

    async def _carry_out(self, observed: ObservationT, plan: Plan) -> Result:
        try:
            await self._change_children(observed, plan)
        except ApiRefusedError as error:
            if not (error.is_denial or is_webhook_down(error)):
                raise
            return await self._block(observed, error)
        await self._status.write(observed, plan)
        self._kind.carried_out(observed)
        if plan.note is not None:
            logger.info("%s: %s", plan.note.reason, plan.note.message)
        return Result(again_after=plan.requeue_after)

    async def _change_children(self, observed: ObservationT, plan: Plan) -> None:
        for patch in plan.patches:
            await self._children.patch(observed.namespace, patch)
        for deletion in plan.delete:
            await self._children.delete(observed.namespace, deletion)

    async def _block(self, observed: ObservationT, error: ApiRefusedError) -> Result:
        """Write the planned status with the reason of the delay; retry, at once where the plan asks for it."""
        text = f"The API server cannot make this change now; the operator retries: {error.message}"
        logger.warning("%s", text)
        plan = await self._write_replanned(replace(observed, blocked=text))
        return Result(failed=plan.requeue_after != 0.0, again_after=plan.requeue_after)

    async def _write_replanned(self, observed: ObservationT) -> Plan:
        plan = self._kind.plan(observed, self._clock.now())
        await self._status.write(observed, plan)
        return plan
