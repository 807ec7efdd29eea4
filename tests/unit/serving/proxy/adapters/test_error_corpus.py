"""Reason and message for each mistake of the error corpus that the files of an adapter decide."""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

import pytest

from error_corpus import statuses
from trainyard_serving.adapter_files import CONFIG, WEIGHTS
from trainyard_serving.proxy.adapters.checks import Unfit, check
from trainyard_serving.proxy.adapters.safetensors_shapes import Shapes

CASES = {name: case.adapter for name, case in statuses().items() if case.adapter is not None}
BASE: Shapes = {"model.layers.0.self_attn.q_proj.weight": (64, 64)}
MAX_RANK = 16
_FLOAT = 4
"""Bytes of an element of type F32."""


def write_weights(path: Path, shapes: dict[str, list[int]]) -> None:
    """Write a safetensors file of zeros."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = _FLOAT * prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def write_adapter(folder: Path, adapter: dict[str, Any]) -> None:
    if "config" in adapter:
        (folder / CONFIG).write_text(json.dumps(adapter["config"]))
    if "weights" in adapter:
        write_weights(folder / WEIGHTS, adapter["weights"])
    for name, text in adapter.get("files", {}).items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("name", CASES)
def test_adapter_is_refused_with_reason_and_message(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    case, adapter = statuses()[name], CASES[name]
    assert adapter is not None
    write_adapter(tmp_path, adapter)
    found = check(tmp_path, BASE, MAX_RANK, "hf://Qwen/Qwen3-0.6B")
    assert isinstance(found, Unfit)
    text = f"{found.reason}: {found.message}"
    if request.config.getoption("--update-goldens"):
        case.expected_path.write_text(f"{text}\n")
    assert text == case.message


def test_adapter_of_the_base_model_is_accepted(tmp_path: Path) -> None:
    adapter = CASES["serve-adapter-rank-too-large"]
    assert adapter is not None
    write_adapter(tmp_path, {**adapter, "config": {**adapter["config"], "r": MAX_RANK}})
    assert check(tmp_path, BASE, MAX_RANK, "hf://Qwen/Qwen3-0.6B") == MAX_RANK
