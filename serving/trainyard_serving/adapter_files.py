"""The files of a PEFT adapter, and what is missing. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


class Missing(NamedTuple):
    """Why a directory has no adapter that can be served.

    Attributes:
        reason: CamelCase reason.
        message: Cause and remedy.
    """

    reason: str
    message: str


def missing(names: Iterable[str]) -> Missing | None:
    """Return what a directory with files of these names lacks; None for the directory of an adapter."""
    present = set(names)
    if CONFIG not in present:
        return Missing("MissingFile", f"It has no {CONFIG}. Name the directory of a PEFT adapter.")
    if WEIGHTS in present:
        return None
    if PICKLED in present:
        text = f"Its weights are pickled ({PICKLED}), which could run code. Save it again as {WEIGHTS}."
        return Missing("PickledAdapter", text)
    return Missing("MissingFile", f"It has no {WEIGHTS}. Name the directory of a PEFT adapter.")
