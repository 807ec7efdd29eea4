"""Rows like {"input_ids": [1, 2], "labels": [-100, 2]}, or with "loss_mask": [0, 1] for labels."""

from __future__ import annotations

from typing import Any

from trainyard_trainer.data.rows import Row, type_name
from trainyard_trainer.tasks.text.formats.example import Example
from trainyard_trainer.tasks.text.formats.row_format import RowFormat

IGNORED = -100
"""The label of a token without loss, as in PyTorch's cross-entropy."""
_HIGHEST = 2**31 - 1


def parse(row: Row) -> Example:
    """The tokens of a row and which of them carry loss: all, if it has neither labels nor a mask.

    Labels are not shifted by one, as in Hugging Face datasets.

    Raises:
        RowError: a list is missing, not of whole numbers, or does not fit the tokens.
    """
    tokens = _numbers(row, "input_ids")
    if not tokens:
        raise row.error("field 'input_ids' is empty", "Remove the row.", kind="EmptyText", field="input_ids")
    if min(tokens) < 0 or max(tokens) > _HIGHEST:
        remedy = "Write the tokenizer's own numbers, from 0."
        raise row.error("field 'input_ids' has an impossible token", remedy, kind="WrongValue", field="input_ids")
    _check_padding(row, len(tokens))
    loss = _loss(row, tokens)
    if not any(loss[1:]):
        problem, remedy = "no token carries loss", "Let a token after the first carry loss, or remove the row."
        raise row.error(problem, remedy, kind="NothingToLearn")
    return Example(tokens=tuple(tokens), token_loss=tuple(loss))


def _loss(row: Row, tokens: list[int]) -> list[bool]:
    given = [field for field in ("labels", "loss_mask") if row.values.get(field) is not None]
    if not given:
        return [True] * len(tokens)
    if len(given) == 2:
        problem, remedy = "it has both 'labels' and 'loss_mask'", "Keep one of the two."
        raise row.error(problem, remedy, kind="WrongValue", field="loss_mask")
    values = _numbers(row, given[0])
    _check_length(row, given[0], len(values), len(tokens))
    return _marked(row, values) if given[0] == "loss_mask" else _labelled(row, values, tokens)


def _marked(row: Row, values: list[int]) -> list[bool]:
    if not set(values) <= {0, 1}:
        remedy = "Write 1 for a token with loss and 0 for one without."
        raise row.error(
            "field 'loss_mask' has other numbers than 0 and 1", remedy, kind="WrongValue", field="loss_mask"
        )
    return [value == 1 for value in values]


def _labelled(row: Row, values: list[int], tokens: list[int]) -> list[bool]:
    for at, (label, token) in enumerate(zip(values, tokens, strict=True)):
        if label not in (IGNORED, token):
            problem = f"field 'labels[{at}]' is {label}, but 'input_ids[{at}]' is {token}"
            remedy = f"Write the token itself, or {IGNORED} for no loss; labels are not shifted by one."
            raise row.error(problem, remedy, kind="WrongValue", field=f"labels[{at}]")
    return [label != IGNORED for label in values]


def _check_padding(row: Row, length: int) -> None:
    """Refuse padding: every token would carry loss."""
    if row.values.get("attention_mask") is None:
        return
    mask = _numbers(row, "attention_mask")
    _check_length(row, "attention_mask", len(mask), length)
    if not all(mask):
        problem, remedy = "field 'attention_mask' hides tokens", "Remove the padding; the trainer packs rows."
        raise row.error(problem, remedy, kind="WrongValue", field="attention_mask")


def _check_length(row: Row, field: str, found: int, wanted: int) -> None:
    if found != wanted:
        problem = f"field '{field}' has {found} entries, but 'input_ids' has {wanted}"
        raise row.error(problem, "Write one entry per token.", kind="WrongValue", field=field)


def _numbers(row: Row, field: str) -> list[int]:
    values: Any = row.values.get(field)
    if values is None:
        problem = f"field '{field}' is missing"
        raise row.error(problem, f"Give every row a list of numbers in '{field}'.", kind="MissingField", field=field)
    if not isinstance(values, list):
        problem = f"field '{field}' must be a list but is {type_name(values)}"
        raise row.error(problem, f"Write '{field}' as a list of whole numbers.", kind="WrongType", field=field)
    for at, value in enumerate(values):
        if type(value) is not int:
            problem = f"field '{field}[{at}]' must be a whole number but is {type_name(value)}"
            remedy = f"Write '{field}' as a list of whole numbers."
            raise row.error(problem, remedy, kind="WrongType", field=f"{field}[{at}]")
    return values


FORMAT = RowFormat(
    name="tokenized",
    required=("input_ids",),
    optional=("labels", "loss_mask", "attention_mask"),
    nested=("input_ids", "labels", "loss_mask", "attention_mask"),
    interpret=parse,
)
