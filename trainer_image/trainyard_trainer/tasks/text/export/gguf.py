"""`gguf`: one file for llama.cpp. The gguf package is imported only when the format is used."""

from __future__ import annotations

from typing import Any

from trainyard_trainer.sources.resolve import LocalModel
from trainyard_trainer.tasks.text.export.adapter_merge import Dequantized, keep_stored, merged_shards
from trainyard_trainer.tasks.text.export.format import ExportJob
from trainyard_trainer.tasks.text.export.stored_weights import read_shards

_USAGE = """```sh
llama-cli --model *.gguf
```
"""


def gguf_usage(_base: LocalModel) -> str:
    """Return the example of llama.cpp."""
    return _USAGE


def check_gguf(base: LocalModel) -> None:
    """Check that a base model can be written.

    Raises:
        ConfigurationError: Its architecture, position encoding or tokenizer is not supported.
    """
    from trainyard_trainer.tasks.text.export.gguf_file import check_supported

    check_supported(base.path, base.name)


def remark_on_gguf(tokenizer: Any) -> str | None:
    """Return how llama.cpp reads texts otherwise than the tokenizer; None where it does not."""
    from trainyard_trainer.tasks.text.export.gguf_tokenizer import remark_on

    return remark_on(tokenizer)


def write_gguf(job: ExportJob) -> None:
    """Write the model: that of full training, or the base model with the adapter merged into it.

    Raises:
        StopRequested: The run is to stop.
    """
    from trainyard_trainer.tasks.text.export.gguf_file import write_file

    is_full = job.config.method == "full"
    shards = read_shards(job.weights if is_full else job.base.path)
    if is_full:
        tensors = ((shard, shard.tensors()) for shard in shards)
    else:
        dequantized = job.request.base == "dequantized"
        substitute = Dequantized(job.model, job.base.path) if dequantized else keep_stored
        tensors = (pair for pair in merged_shards(job.base.path, job.weights, substitute))
    kind, identity = job.request.type or "bf16", job.config.job
    write_file(
        tensors,
        {name: shape for shard in shards for name, shape in shard.shapes().items()},
        job.base.path,
        job.directory / f"model-{kind}.gguf",
        tokenizer=job.tokenizer,
        name=identity.name if identity else job.base.name,
        type_=kind,
        poll=job.poll,
    )
