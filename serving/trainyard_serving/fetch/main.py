"""`fetch`: the init container that fetches the model. `fetch-adapter DIRECTORY`: one adapter, for the proxy."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainyard_crds.constants import TERMINATION_LOG, TERMINATION_LOG_ENV
from trainyard_crds.runconfig import RunS3
from trainyard_crds.serving import SERVING_CONFIG_FILE, Artifact, ServingConfig
from trainyard_serving.fetch.failures import failure_of
from trainyard_serving.fetch.selection import adapter_files
from trainyard_serving.fetch.sources import Sources, cache_directory
from trainyard_trainer.errors import NotFoundError, StorageError, TrainerError
from trainyard_trainer.sources.files import check_model_directory

CONFIG_ENV = "TRAINYARD_PROXY_CONFIG"
_FAILED = 1
_MODEL_TIMEOUT = 600.0
"""Seconds that a model waits for an artifact reader; the kubelet restarts the container then."""
_ADAPTER_TIMEOUT = 60.0
"""Seconds that an adapter waits for an artifact reader in one try; the proxy tries again."""

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run one of the two commands; 0 when the files are there."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = ServingConfig.model_validate_json(Path(os.environ.get(CONFIG_ENV, SERVING_CONFIG_FILE)).read_bytes())
    try:
        if arguments[0] == "fetch":
            _fetch_model(config)
        else:
            _fetch_adapter(config, Path(arguments[1]))
    except TrainerError as error:
        document = failure_of(error).model_dump_json(by_alias=True)
        if arguments[0] == "fetch":
            Path(os.environ.get(TERMINATION_LOG_ENV, TERMINATION_LOG)).write_text(document)
        sys.stdout.write(f"{document}\n")
        return _FAILED
    return 0


def _fetch_model(config: ServingConfig) -> None:
    """Put the model where the engine looks for it; a complete one stays."""
    target = Path(config.model_path)
    found = _sources(config, cache_directory(os.environ, target.parent / "downloads"), _MODEL_TIMEOUT).fetch(
        config.model
    )
    check_model_directory(found, config.model.display)
    if found != target:
        with _storage_errors(target):
            _link(found, target)
    logger.info("the model %s is at %s", config.model.display, target)


def _link(found: Path, target: Path) -> None:
    """Let a path lead to a directory, in one step."""
    temporary = target.with_name(f".{target.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(found)
    temporary.replace(target)


def _fetch_adapter(config: ServingConfig, target: Path) -> None:
    """Copy an adapter to a directory that exists only when it is complete."""
    artifact = Artifact.model_validate_json(sys.stdin.buffer.read())
    downloads = target.with_name(f".{target.name}.downloads")
    found = _sources(config, cache_directory(os.environ, downloads), _ADAPTER_TIMEOUT).fetch(artifact, adapter_files)
    if not found.is_dir():
        raise NotFoundError(f"There is no directory {artifact.display}.", "Name the directory of a PEFT adapter.")
    with _storage_errors(target):
        _copy(found, adapter_files([path.name for path in found.iterdir() if path.is_file()]), target)
        shutil.rmtree(downloads, ignore_errors=True)


def _copy(directory: Path, names: Sequence[str], target: Path) -> None:
    """Copy files to a directory that exists only when it is complete."""
    temporary = target.with_name(f".{target.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name in names:
        shutil.copyfile(directory / name, temporary / name)
    temporary.rename(target)


@contextmanager
def _storage_errors(target: Path) -> Iterator[None]:
    """Raise errors of the file system as StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"The files could not be written to {target}: {error.strerror}.",
            "Give the pod more ephemeral storage (spec.resources.ephemeralStorage).",
        ) from error


def _sources(config: ServingConfig, cache: Path, reader_timeout: float) -> Sources:
    s3 = config.s3 or RunS3()
    return Sources(namespace=config.namespace, cache=cache, environ=os.environ, s3=s3, reader_timeout=reader_timeout)
