"""Why a replica does not serve: read from its pod. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import ValidationError

from trainyard_crds.serving import ENGINE_CONTAINER, FETCH_CONTAINER, FetchFailure
from trainyard_kube.paths import Object
from trainyard_operator.modeldeployment.model import is_ready

_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_LAST_LINES, _CAUSES, _LIMIT = 12, 4, 1500
"""Last lines, lines that name an error, and characters of the engine's own output in a message."""
_CAUSE = re.compile(r"\b\w*(Error|Exception)\b(: |\().*")


class Failure(NamedTuple):
    """Why a replica does not serve.

    Attributes:
        reason: CamelCase reason.
        message: Cause and remedy, a sentence.
        pod: Name of the pod.
        final: Whether only a change of the ModelDeployment, or of what it names, can help.
    """

    reason: str
    message: str
    pod: str
    final: bool = False


def failure_of(pods: Iterable[Object], logs: Mapping[str, str | None]) -> Failure | None:
    """Return the failure of the newest pod that has one; None while all are ready or starting without a fault.

    Args:
        pods: The pods.
        logs: End of the engine's log by the name of the pod, as far as it was read.
    """
    newest_first = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), reverse=True)
    return next((found for pod in newest_first if not is_ready(pod) and (found := _of_pod(pod, logs))), None)


def engine_ended(pod: Object) -> bool:
    """Return whether the engine of a pod waits for its restart after an end that its log explains."""
    entries = (pod.get("status") or {}).get("containerStatuses") or []
    engine: Object = next((entry for entry in entries if entry["name"] == ENGINE_CONTAINER), {})
    ended = (engine.get("lastState") or {}).get("terminated") or {}
    return "waiting" in (engine.get("state") or {}) and bool(ended) and ended.get("reason") != "OOMKilled"


def _of_pod(pod: Object, logs: Mapping[str, str | None]) -> Failure | None:
    status, name = pod.get("status") or {}, str(pod["metadata"]["name"])
    found = _unscheduled(status) or _evicted(status)
    if found is not None:
        return Failure(*found, pod=name)
    entries = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for entry in entries:
        failure = _of_container(entry, name, logs.get(name))
        if failure is not None:
            return failure
    return None


def _unscheduled(status: Object) -> tuple[str, str] | None:
    for entry in status.get("conditions") or []:
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            return "Unschedulable", f"No node has room for the replica: {entry.get('message', '')}"
    return None


def _evicted(status: Object) -> tuple[str, str] | None:
    if status.get("phase") != "Failed":
        return None
    reason = str(status.get("reason") or "PodFailed")
    return reason, f"The replica's pod failed: {status.get('message') or reason}"


def _of_container(entry: Object, pod: str, log: str | None) -> Failure | None:
    state, last = entry.get("state") or {}, entry.get("lastState") or {}
    waiting = state.get("waiting") or {}
    reason, text = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    container = entry["name"]
    if reason in _IMAGE_REASONS:
        message = f"The image of the {container} cannot be pulled: {text} Correct the image, or its pull Secret."
        return Failure("ImagePullFailed", message, pod)
    if reason in _CONFIG_REASONS:
        return Failure(reason, f"The {container} cannot be started: {text}", pod)
    ended = state.get("terminated") or last.get("terminated")
    return _of_end(container, ended or {}, pod, log)


def _of_end(container: str, ended: Object, pod: str, log: str | None) -> Failure | None:
    """Return what the end of a container means; None without an end, and for one that is done."""
    if not ended or (ended.get("exitCode") == 0 and container != ENGINE_CONTAINER):
        return None
    if ended.get("reason") == "OOMKilled":
        return Failure("OutOfMemory", _out_of_memory(container), pod)
    if container == FETCH_CONTAINER:
        return _fetch_failure(str(ended.get("message") or ""), pod)
    if container == ENGINE_CONTAINER:
        return Failure("EngineFailed", _ended(container, ended, log or str(ended.get("message") or "")), pod)
    return Failure("ProxyFailed", _ended(container, ended, str(ended.get("message") or "")), pod)


def _out_of_memory(container: str) -> str:
    if container == ENGINE_CONTAINER:
        return (
            "The engine needed more memory than spec.resources.memory and was killed. Raise it, or lower "
            "--max-model-len or --max-num-seqs in spec.args."
        )
    return f"The {container} needed more memory than its limit and was killed; it is restarted."


def _fetch_failure(text: str, pod: str) -> Failure:
    try:
        failure = FetchFailure.model_validate_json(text)
    except ValidationError:
        return Failure("FetchFailed", f"The model could not be fetched: {_tail(text)}", pod)
    return Failure(failure.reason, failure.message, pod, final=failure.final)


def _ended(container: str, ended: Object, text: str) -> str:
    """An exit code of 0 is a fault too: the engine exits so when one of its processes was killed."""
    output = _tail(text)
    lines = f" It wrote: {output}" if output else ""
    return f"The {container} ended with exit code {ended.get('exitCode')} and is restarted.{lines}"


def _tail(text: str) -> str:
    """Return the lines that name an error, else the last ones: the cause stands far above the end of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = list(dict.fromkeys(match[0] for line in lines if (match := _CAUSE.search(line))))
    return "\n".join(causes[:_CAUSES] or lines[-_LAST_LINES:])[-_LIMIT:]
