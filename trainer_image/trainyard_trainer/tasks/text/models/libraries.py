"""Imports of libraries whose import has costly side effects."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from trainyard_trainer.tasks.text.models.library_logging import quiet_libraries


def import_libraries(*, adapter: bool) -> None:
    """Import what loading a model needs, so that its time is not counted as that of the data or the model.

    Args:
        adapter: Whether PEFT is needed.
    """
    quiet_libraries()
    importlib.import_module("transformers.modeling_utils")
    if adapter:
        import_bitsandbytes()
        importlib.import_module("peft")


def import_bitsandbytes() -> Any:
    """Import bitsandbytes without loading torch's compiler. PEFT imports it too: call this before PEFT is imported.

    During its import, bitsandbytes passes some slow paths to `torch.compile`, which loads Inductor: half as much CPU
    time as torch itself. Here those paths stay plain functions, their own fallback.
    """
    with _without_compiler():
        import bitsandbytes

    return bitsandbytes


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Make `torch.compile` return its argument."""

    def keep(function: Callable[..., Any] | None = None, **_options: Any) -> Any:
        return keep if function is None else function

    original = torch.compile
    torch.compile = keep  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compile = original
