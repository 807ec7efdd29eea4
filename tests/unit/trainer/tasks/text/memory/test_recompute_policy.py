"""The recompute mode by free memory."""

from typing import Any

import pytest

from tests.unit.trainer.tasks.text.memory.configs import llama_8b, run
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.memory.recompute import Mode, recompute_of
from trainyard_trainer.tasks.text.memory.estimate import context_bytes, estimate
from trainyard_trainer.tasks.text.memory.recompute_policy import MARGIN, FreeMemory, choose_recompute

SHAPE = llama_8b()
GIB = 2**30


def config(mode: str = "auto", gpus: int = 1, **blocks: Any) -> RunConfig:
    made = run("lora", **blocks)
    options = made.optimization.model_copy(update={"recompute": mode, "precision": "bf16", "batch_size": 1})
    return made.model_copy(update={"gpus": gpus, "optimization": options})


def room_for(mode: Mode, layers: int | None = None, gpus: int = 1) -> int:
    """The smallest device that the mode fits with room to spare."""
    held = context_bytes(config(gpus=gpus))
    peak = estimate(config(gpus=gpus, llm={"maxLength": 4096}), SHAPE, recompute_of(mode, SHAPE.layers, layers)).peak
    return int((peak - held) / MARGIN) + held + 1


def chosen(mode: str, room: FreeMemory, gpus: int = 1) -> str:
    return str(choose_recompute(config(mode, gpus, llm={"maxLength": 4096}), SHAPE, room))


def test_nothing_is_recomputed_where_it_fits_or_memory_is_unknown() -> None:
    assert chosen("auto", FreeMemory(room_for("none"))) == "none"
    assert chosen("auto", FreeMemory()) == "none"


@pytest.mark.parametrize("layers", [1, 7, 31])
def test_fewest_layers_are_recomputed(layers: int) -> None:
    enough = room_for("selective", layers)
    assert chosen("auto", FreeMemory(enough)) == f"selective ({layers} of 32 layers)"
    assert chosen("auto", FreeMemory(enough - GIB // 8)) != f"selective ({layers} of 32 layers)"


def test_offload_comes_last_and_needs_host_memory() -> None:
    short = min(room_for("full"), room_for("selective", 31)) - GIB // 8
    assert chosen("auto", FreeMemory(short)) == "offload"
    assert chosen("auto", FreeMemory(short, host=64 * GIB)) == "offload"
    assert chosen("auto", FreeMemory(short, host=GIB)) == "full"


def test_cpu_never_offloads() -> None:
    assert chosen("auto", FreeMemory(room_for("none", gpus=0)), gpus=0) == "none"
    assert chosen("auto", FreeMemory(8 * GIB), gpus=0) == "full"


@pytest.mark.parametrize("mode", ["none", "full", "offload"])
def test_configured_mode_is_used(mode: str) -> None:
    for room in (FreeMemory(), FreeMemory(GIB), FreeMemory(200 * GIB)):
        assert chosen(mode, room) == mode


def test_selective_takes_half_of_layers_or_more() -> None:
    assert chosen("selective", FreeMemory()) == "selective (16 of 32 layers)"
    assert chosen("selective", FreeMemory(room_for("none"))) == "selective (16 of 32 layers)"
    assert chosen("selective", FreeMemory(room_for("selective", 20))) == "selective (20 of 32 layers)"
    assert chosen("selective", FreeMemory(GIB)) == "selective (32 of 32 layers)"


def test_paged_moments_make_way_for_activations() -> None:
    def moments(optimizer: str) -> int:
        made = config(llm={"maxLength": 4096})
        options = made.optimization.model_copy(update={"optimizer": optimizer})
        found = estimate(made.model_copy(update={"optimization": options}), SHAPE, recompute_of("full", SHAPE.layers))
        return found.parts.get("optimizer", 0)

    assert moments("adamw8bit") > 0
    assert moments("paged_adamw8bit") == 0


def test_offloaded_inputs_count_as_host_memory() -> None:
    made = config(llm={"maxLength": 4096})
    full, offload = (estimate(made, SHAPE, way) for way in (recompute_of("full", 32), recompute_of("offload", 32)))
    layer_input = 4096 * 4096 * 2
    assert offload.on_host == 32 * layer_input
    assert full.peak - offload.peak == 30 * layer_input
    assert full.on_host == 0
