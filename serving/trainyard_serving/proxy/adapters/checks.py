"""Checks an adapter before the engine sees it: the engine accepts some that then answer nonsense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from trainyard_serving.adapter_files import CONFIG, WEIGHTS, missing
from trainyard_serving.proxy.adapters.safetensors_shapes import DamagedFileError, Shapes, file_shapes

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_SHOWN = 3
_AGAIN = "Export or upload the adapter again."


class Unfit(NamedTuple):
    """Why an adapter cannot be served.

    Attributes:
        reason: CamelCase reason.
        message: Cause and remedy, a sentence.
    """

    reason: str
    message: str


def check(directory: Path, base: Shapes | None, max_rank: int, served_base: str) -> Unfit | int:
    """Return the rank of an adapter that can be served, or why it cannot.

    Args:
        directory: Its files.
        base: Shapes of the base model's tensors; None if they say nothing (quantised weights).
        max_rank: Largest rank that the engine accepts.
        served_base: The base model, for messages.
    """
    lacks = missing(path.name for path in directory.iterdir() if path.is_file())
    if lacks is not None and not (directory / CONFIG).is_file():
        return Unfit(*lacks)
    config = _config(directory)
    if isinstance(config, Unfit):
        return config
    unfit = _settings(config) or (None if lacks is None else Unfit(*lacks))
    if unfit is not None:
        return unfit
    rank = _rank(config)
    if rank > max_rank:
        text = (
            f"Its rank is {rank}, and the engine was started for ranks up to {max_rank}. Set spec.maxAdapterRank to "
            f"{rank}; the replicas are then replaced once."
        )
        return Unfit("RankTooLarge", text)
    try:
        shapes = file_shapes(directory / WEIGHTS)
    except (DamagedFileError, OSError) as error:
        return Unfit("DamagedAdapter", f"{error} {_AGAIN}")
    named = config.get("base_model_name_or_path") or "an unknown model"
    return _fit(shapes, base, f"It was trained on {named}; served is {served_base}.") or rank


def _config(directory: Path) -> dict[str, Any] | Unfit:
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return Unfit("DamagedAdapter", f"Its {CONFIG} cannot be read ({error}). {_AGAIN}")
    return config if isinstance(config, dict) else Unfit("DamagedAdapter", f"Its {CONFIG} is no JSON object. {_AGAIN}")


def _settings(config: dict[str, Any]) -> Unfit | None:
    """Return which setting the engine cannot serve."""
    kind = config.get("peft_type")
    if kind != "LORA":
        return Unfit("NotLora", f"Its peft_type is {kind}; only LORA adapters can be served beside a model.")
    remedy = "Merge it into its base model (export merged) and serve that."
    if config.get("modules_to_save"):
        names = ", ".join(map(str, config["modules_to_save"]))
        return Unfit("UnsupportedAdapter", f"It contains whole layers (modules_to_save: {names}). {remedy}")
    if config.get("use_dora"):
        return Unfit("UnsupportedAdapter", f"It is a DoRA adapter, which the engine cannot serve. {remedy}")
    if config.get("bias", "none") != "none":
        return Unfit("UnsupportedAdapter", f"It trains biases (bias: {config['bias']}). {remedy}")
    return None


def _rank(config: dict[str, Any]) -> int:
    """Return the largest rank, also of single modules."""
    pattern = config.get("rank_pattern") or {}
    return max([int(config.get("r") or 0), *map(int, pattern.values())])


def _fit(shapes: Shapes, base: Shapes | None, trained_on: str) -> Unfit | None:
    """Return which modules do not fit the base model."""
    pairs = {name.removesuffix(_A): shape for name, shape in shapes.items() if name.endswith(_A)}
    if not pairs:
        return Unfit("NoLoraWeights", f"Its {WEIGHTS} has no LoRA matrices. Export the adapter again.")
    if base is None:
        return None
    unknown, misfits = [], []
    for module, inner in pairs.items():
        name = module.removeprefix(_PREFIX)
        weight, outer = base.get(f"{name}.weight"), shapes.get(f"{module}{_B}")
        if weight is None:
            unknown.append(name)
        elif outer is None or len(weight) != 2 or sorted(weight) != sorted((inner[-1], outer[0])):
            misfits.append(name)
    if unknown:
        which = "None of its modules is" if len(unknown) == len(pairs) else f"{len(unknown)} of its modules are not"
        text = f"{which} in the base model, for example {', '.join(sorted(unknown)[:_SHOWN])}. {trained_on}"
        return Unfit("AdapterOfAnotherBase", text)
    if misfits:
        text = (
            f"Its matrices do not fit the base model, for example {', '.join(sorted(misfits)[:_SHOWN])}. {trained_on}"
        )
        return Unfit("AdapterOfAnotherBase", text)
    return None
