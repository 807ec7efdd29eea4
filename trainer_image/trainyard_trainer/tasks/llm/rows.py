"""The rows of a run: fetched, checked and tokenised."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.checkpoint.store import CACHE
from trainyard_trainer.engine.task import RunContext
from trainyard_trainer.sources.resolve import Access, LocalModel, resolve_file
from trainyard_trainer.tasks.text.batches import BatchSettings
from trainyard_trainer.tasks.text.chat import Encoder
from trainyard_trainer.tasks.text.chat_template import reads_the_date
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.prepare import DataRequest, Prepared, prepare
from trainyard_trainer.tasks.text.token_cache import TokenCache

_DATE = "date"
"""Key in resolved.json."""


def access_of(context: RunContext) -> Access:
    """Return the credentials and the cache for downloads."""
    shared = context.config.cache_directory
    cache = None if shared is None else Path(shared) / "downloads"
    return Access(s3=context.config.s3, cache=cache, progress=context.progress)


def _token_directory(context: RunContext) -> Path:
    """Return the directory of tokens for later starts, and with a shared cache for other runs."""
    shared = context.config.cache_directory
    return context.run_directory / CACHE if shared is None else Path(shared) / "tokens"


def fetch_rows(context: RunContext) -> tuple[ExampleFile, ExampleFile | float | None]:
    """Fetch the training rows, and the held-out ones: their file, or their fraction of the training rows."""
    dataset = context.config.dataset

    def fetch(source: str, sha256: str | None, max_rows: int | None) -> ExampleFile:
        file = resolve_file(source, context.resolved, context.stop.check, access_of(context), sha256=sha256)
        return ExampleFile(
            path=file.path,
            name=file.name,
            format=dataset.format,
            max_rows=max_rows,
            skip_limit=dataset.skip_limit,
        )

    train = fetch(dataset.source, dataset.sha256, dataset.max_rows)
    if dataset.validation is None:
        return train, None
    if dataset.validation.source is None:
        return train, dataset.validation.fraction
    return train, fetch(dataset.validation.source, dataset.validation.sha256, None)


def prepare_rows(
    context: RunContext, base: LocalModel, tokenizer: Any, train: ExampleFile, validation: ExampleFile | float | None
) -> Prepared:
    """Check and tokenise the rows."""
    request = _request(context.config, train, validation, _pad_token(tokenizer))
    encoder = Encoder(tokenizer, context.config.llm.train_on, base.name, _date_of_run(context, tokenizer))
    cache = TokenCache(_token_directory(context), keeps=context.group.is_main_process)
    return prepare(request, encoder, cache=cache, poll=context.stop.check, log=context.log)


def _date_of_run(context: RunContext, tokenizer: Any) -> date | None:
    """Return the date of the run's first start if the chat template writes it: a later start has the same rows."""
    if not reads_the_date(tokenizer):
        return None
    if (known := context.resolved.get(_DATE)) is None:
        known = today().isoformat()
        context.resolved.put(_DATE, known)
    return date.fromisoformat(known)


def today() -> date:
    """Return the date by the clock, in UTC."""
    return datetime.now(UTC).date()


def _request(
    config: RunConfig, train: ExampleFile, validation: ExampleFile | float | None, pad_token: int
) -> DataRequest:
    return DataRequest(
        train=train,
        validation=validation,
        overlong=config.llm.overlong,
        train_on=config.llm.train_on,
        batches=BatchSettings(
            batch_size=config.optimization.batch_size,
            max_length=config.llm.max_length,
            packing=config.llm.packing,
            pad_token=pad_token,
            seed=config.optimization.seed,
        ),
    )


def _pad_token(tokenizer: Any) -> int:
    """Return the padding token; any will do where the tokenizer has none, since padding carries no loss."""
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return int(next(token for token in candidates if token is not None))
