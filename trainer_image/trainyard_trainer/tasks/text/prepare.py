"""From dataset files to training and evaluation batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trainyard_crds.report import InvalidRows
from trainyard_trainer.data.split import held_out
from trainyard_trainer.errors import DataError
from trainyard_trainer.tasks.text.batches import BatchSettings, TextBatches
from trainyard_trainer.tasks.text.chat import Encoder
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.formats.example import TrainOn
from trainyard_trainer.tasks.text.invalid_rows import invalid_rows
from trainyard_trainer.tasks.text.row_warnings import sentences
from trainyard_trainer.tasks.text.token_cache import TokenCache
from trainyard_trainer.tasks.text.token_rows import Overlong, TokenizedFile, tokenize_file


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """The files to read and the settings to read them with."""

    train: ExampleFile
    validation: ExampleFile | float | None
    """Held-out rows: a file, or a fraction of the training rows."""
    overlong: Overlong
    train_on: TrainOn
    batches: BatchSettings


class TrainBatches:
    """Training batches with the data fingerprint of the run directory."""

    def __init__(self, batches: TextBatches, fingerprint: str) -> None:
        self.batches = batches
        self.fingerprint = fingerprint
        self.num_micro_batches = batches.num_micro_batches
        self.micro_batch = batches.micro_batch
        self.origins = batches.origins


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Batches for training and evaluation, and metrics about them."""

    train: TrainBatches
    evaluation: TextBatches | None
    metrics: dict[str, float]
    invalid_rows: InvalidRows | None
    """Rows that were skipped because they are invalid; None if there are none."""


class _Preparation:
    def __init__(
        self,
        request: DataRequest,
        encoder: Encoder,
        cache: TokenCache | None,
        poll: Callable[[], None],
        log: Callable[[str, str], None],
    ) -> None:
        self.request = request
        self.encoder = encoder
        self.cache = cache
        self.poll = poll
        self.log = log

    def run(self) -> Prepared:
        train = self._tokenize(self.request.train)
        members, evaluation = list(range(len(train.rows))), None
        files = [train]
        if isinstance(self.request.validation, ExampleFile):
            held = self._tokenize(self.request.validation)
            self._warn_of_overlap(train, held)
            evaluation = self._held_out(held, range(len(held.rows)))
            files.append(held)
        elif self.request.validation is not None:
            members, rest = self._split(train, self.request.validation)
            evaluation = self._held_out(train, rest)
        batches = TextBatches(train.rows, members, self.request.batches, origins=train.origins)
        fingerprint = batches.fingerprint(self._settings(files, evaluation))
        return Prepared(
            train=TrainBatches(batches, fingerprint),
            evaluation=evaluation,
            metrics=_metrics(files, batches, evaluation),
            invalid_rows=invalid_rows([file.skipped for file in files]),
        )

    def _held_out(self, file: TokenizedFile, members: Sequence[int]) -> TextBatches:
        return TextBatches(file.rows, members, self.request.batches, shuffle=False, origins=file.origins)

    def _tokenize(self, file: ExampleFile) -> TokenizedFile:
        tokenized = self._tokenize_once(file)
        if file.format == "auto":
            self.log("DatasetFormat", f"The rows of {file.name} ({file.type_name}) are written as {tokenized.format}.")
        self._log_losses(file.name, tokenized)
        return tokenized

    def _tokenize_once(self, file: ExampleFile) -> TokenizedFile:
        """Tokenise a file, or load its tokens from the cache."""
        identity = self.encoder.identity
        if self.cache is None or identity is None:
            return self._tokenize_now(file)
        limit, overlong = self.request.batches.max_length, self.request.overlong
        key = self.cache.key(file, identity, limit, overlong, self.poll)
        if (kept := self.cache.load(key)) is not None:
            self.log("TokensReused", f"The tokens of {file.name} are loaded from the cache.")
            return kept
        tokenized = self._tokenize_now(file)
        try:
            self.cache.store(key, tokenized)
        except OSError as error:
            why = error.strerror or str(error)
            self.log("TokensNotKept", f"The tokens of {file.name} cannot be cached: {why}.")
        return tokenized

    def _tokenize_now(self, file: ExampleFile) -> TokenizedFile:
        return tokenize_file(
            file,
            self.encoder,
            max_length=self.request.batches.max_length,
            overlong=self.request.overlong,
            poll=self.poll,
        )

    def _log_losses(self, name: str, file: TokenizedFile) -> None:
        if file.invalid:
            total = file.seen + file.invalid
            problem = f"are invalid and were skipped (spec.dataset.onInvalidRow). {file.skipped.named()}"
            self.log("RowsInvalid", f"{file.invalid} of {total} rows of {name} {problem}")
        limit = f"longer than spec.llm.maxLength {self.request.batches.max_length} (longest: {file.longest} tokens)"
        if file.dropped:
            self.log("RowsDropped", f"{file.dropped} of {file.seen} rows of {name} are {limit} and were dropped.")
        if file.truncated:
            self.log("RowsTruncated", f"{file.truncated} of {file.seen} rows of {name} are {limit} and were truncated.")
        if file.split:
            self.log("RowsSplit", f"{file.split} of {file.seen} rows of {name} are {limit} and were split.")
        if file.without_loss:
            problem = "have no token with loss within the limit and were dropped"
            self.log("RowsWithoutLoss", f"{file.without_loss} of {file.seen} rows of {name} {problem}.")
        for kind, sentence in sentences(file.warnings, file.seen, name):
            self.log(kind, sentence)

    def _split(self, file: TokenizedFile, fraction: float) -> tuple[list[int], list[int]]:
        marks = held_out(file.digests, fraction)
        members = [row for row, held in enumerate(marks) if not held]
        if not members:
            raise DataError(
                f"{self.request.train.name} has too few different rows ({len(set(file.digests))}) to hold out a"
                f" fraction of {fraction:g} and train on the rest.",
                "Add rows, or remove spec.dataset.validation.",
            )
        return members, [row for row, held in enumerate(marks) if held]

    def _warn_of_overlap(self, train: TokenizedFile, held: TokenizedFile) -> None:
        known = set(train.digests)
        shared = sum(digest in known for digest in held.digests)
        if shared:
            self.log(
                "ValidationOverlap",
                f"{shared} of {len(held.digests)} validation rows are training rows too: the evaluation loss will be"
                " too low. Remove them from one of the two files.",
            )

    def _settings(self, files: list[TokenizedFile], evaluation: TextBatches | None) -> dict[str, object]:
        """Other inputs of the fingerprint; the held-out rows are included because they decide the best checkpoint."""
        return {
            "formats": [file.format for file in files],
            "template": next((file.template for file in files if file.template is not None), None),
            "overlong": self.request.overlong,
            "trainOn": self.request.train_on,
            "evaluation": evaluation.fingerprint({}) if evaluation else None,
        }


def prepare(
    request: DataRequest,
    encoder: Encoder,
    *,
    cache: TokenCache | None = None,
    poll: Callable[[], None] = lambda: None,
    log: Callable[[str, str], None] = lambda _type, _sentence: None,
) -> Prepared:
    """Read, check, tokenise and split the rows.

    Args:
        request: The files and the settings.
        encoder: Tokenises rows.
        cache: Stores the tokens for a later attempt; None disables it.
        poll: Called before each row; may raise.
        log: Takes (type, message).

    Raises:
        ConfigurationError: the chat template cannot be used.
        DataError: a row is invalid, or none is usable.
        NotFoundError: a file does not exist.
    """
    return _Preparation(request, encoder, cache, poll, log).run()


def _metrics(files: list[TokenizedFile], train: TextBatches, evaluation: TextBatches | None) -> dict[str, float]:
    metrics = {
        "trainRows": float(len(train)),
        "trainTokens": float(train.num_tokens),
        "packingEfficiency": round(train.efficiency, 4),
        "rowsDropped": float(sum(file.dropped + file.without_loss for file in files)),
        "rowsTruncated": float(sum(file.truncated for file in files)),
        "rowsSplit": float(sum(file.split for file in files)),
    }
    return metrics if evaluation is None else {**metrics, "evalRows": float(len(evaluation))}
