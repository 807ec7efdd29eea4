"""Imports of libraries that do more than they need to while they are imported."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from trainyard_trainer.tasks.text.models.library_logging import quiet_libraries


def import_libraries(*, adapter: bool) -> None:
    """Import what loading a model needs, so that the time it takes is not taken for that of the data or the model.

    Args:
        adapter: Whether PEFT is needed.
    """
    quiet_libraries()
    importlib.import_module("transformers.modeling_utils")
    if adapter:
        import_bitsandbytes()
        importlib.import_module("peft")


def import_bitsandbytes() -> Any:
    """The bitsandbytes package, without the compiler. PEFT imports it too, so call this before PEFT loads.

    bitsandbytes hands some of its slow paths to `torch.compile` while it is imported, which loads Inductor: as much CPU
    time as half of torch itself. Those paths have their own fallback, the plain functions, and they stay plain here.
    """
    with _plain_functions():
        import bitsandbytes

    return bitsandbytes


@contextmanager
def _plain_functions() -> Iterator[None]:
    """Let `torch.compile` give back the function it gets."""

    def keep(function: Callable[..., Any] | None = None, **_options: Any) -> Any:
        return keep if function is None else function

    original = torch.compile
    torch.compile = keep  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = original
