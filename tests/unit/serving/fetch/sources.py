"""Access to a reader process, and artifacts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.unit.serving.reader_process import Reader
from tests.unit.serving.runs import CHECKPOINT, EXPORT
from trainyard_crds.serving import READER_CA_ENV, READER_TOKEN_ENV, Artifact
from trainyard_serving.fetch.sources import Sources


def sources(reader: Reader, cache: Path, sleep: Callable[[float], None] = lambda _seconds: None) -> Sources:
    """Return access to a reader, whatever the claim is named."""
    return Sources(
        namespace="team",
        cache=cache,
        environ={READER_CA_ENV: str(reader.authorities), READER_TOKEN_ENV: str(reader.token_file)},
        reader_timeout=60,
        sleep=sleep,
        address=lambda _namespace, _claim: reader.address,
    )


def checkpoint(digest: str | None) -> Artifact:
    """Return the adapter of the checkpoint."""
    place = f"claim/{CHECKPOINT}"
    return Artifact(source=f"run://{place}", digest=digest, files="weights", display=f"pvc://{place}")


def export(digest: str | None) -> Artifact:
    """Return the exported model."""
    return Artifact(source=f"run://claim/{EXPORT}", digest=digest, display=f"pvc://claim/{EXPORT}")
