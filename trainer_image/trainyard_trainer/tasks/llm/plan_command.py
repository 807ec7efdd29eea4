"""The memory plan of a language model's run, for `trainyard-trainer plan`; reads no weights."""

from __future__ import annotations

from collections.abc import Mapping

from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.sources import files
from trainyard_trainer.tasks.text.memory.plan import table
from trainyard_trainer.tasks.text.memory.shape import ModelShape, read_shape, shape_of


def plan(config: RunConfig, environ: Mapping[str, str], device: int | None) -> str:
    """Return the plan, for a device of so many bytes where one is given.

    Raises:
        TrainerError: The model's shape cannot be read.
    """
    return table(config, _shape(config, environ), device)


def _shape(config: RunConfig, environ: Mapping[str, str]) -> ModelShape:
    """Read the shape of a model on this machine, in object storage or on the hub."""
    source, name = config.model.source, config.model.display_source or config.model.source
    if source.startswith(files.SCHEME):
        directory = files.local_path(source)
        files.check_model_directory(directory, name)
        return read_shape(directory, name)

    from trainyard_trainer.sources import hub, remote_files, safetensors_headers

    if source.startswith(remote_files.S3_SCHEME):
        bucket, _, folder = source.removeprefix(remote_files.S3_SCHEME).partition("/")
        remote = remote_files.open_bucket(bucket, config.s3, environ)
        found = safetensors_headers.read_bucket_headers(remote, folder.strip("/"))
    else:
        revision = config.model.revision
        found = hub.read_headers(
            hub.HubRepository(kind="model", name=source.removeprefix(hub.SCHEME), revision=revision)
        )
    return shape_of(found.config, found.tensors, name)
