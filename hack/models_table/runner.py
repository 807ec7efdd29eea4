"""Runs the cells of each architecture in a process of its own, forked with the libraries already imported."""

from __future__ import annotations

import json
import multiprocessing
import os
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from models_table.architectures import POSITIONS, VOCABULARY, make_model
from models_table.cells import COLUMNS, Cell, Row, run_cell
from tiny_model.tokenizer import train_tokenizer
from trainyard_trainer.tasks.text.models.libraries import import_libraries

SECONDS_PER_CELL = 60
_LOG = "output.txt"
_QUESTIONS = ("what is the colour of", "how tall is", "where lives", "who painted", "when was born")
_SUBJECTS = ("the red fox", "a blue whale", "my old house", "the green tree")


def run_all(names: Sequence[str], folder: Path) -> Iterator[Row]:
    """Run every cell of some architectures, one process after the other; yield their rows in order.

    Args:
        names: Types of transformers' configurations.
        folder: An empty folder for models and runs.
    """
    torch.set_num_threads(1)
    import_libraries(adapter=True)
    import trainyard_trainer.engine.session
    import trainyard_trainer.tasks.llm.task  # noqa: F401 - imported once, before the forks

    rows = _write_rows(folder / "rows.jsonl")
    for name in names:
        yield _run_architecture(name, rows, folder / name)


def _run_architecture(name: str, rows: Path, folder: Path) -> Row:
    folder.mkdir()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, rows, folder, sender))
    process.start()
    sender.close()
    try:
        cells = {column: _received(receiver) for column in COLUMNS}
    finally:
        process.kill()
        process.join()
    return Row(name, cells)


def _received(receiver: Connection) -> Cell:
    """Return the next cell; a process that ended or takes too long has failed."""
    if not receiver.poll(SECONDS_PER_CELL):
        return Cell("fails", f"no result within {SECONDS_PER_CELL} seconds")
    try:
        cell: Cell = receiver.recv()
    except EOFError:
        return Cell("fails", "the process ended")
    return cell


def _work(name: str, rows: Path, folder: Path, sender: Connection) -> None:
    """Save the tiny model and run all cells, in the forked process."""
    log = os.open(folder / _LOG, os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    model = folder / "model"
    make_model(name).save_pretrained(model)
    train_tokenizer(_texts(), VOCABULARY, POSITIONS).save_pretrained(model)
    for column in COLUMNS:
        try:
            sender.send(run_cell(name, column, model, rows, folder / column))
        except Exception as error:  # noqa: BLE001 - a cell that fails is a result
            traceback.print_exc()
            sender.send(Cell("fails", f"{type(error).__name__}: {error}"))


def _texts() -> list[str]:
    return [f"{question} {subject}" for question in _QUESTIONS for subject in _SUBJECTS]


def _write_rows(path: Path) -> Path:
    """Write a few conversations of different lengths."""
    lines = []
    for number, question in enumerate(_texts()):
        answer = " ".join([_SUBJECTS[number % 4]] * (1 + number % 3))
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        lines.append(json.dumps({"messages": turns}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
