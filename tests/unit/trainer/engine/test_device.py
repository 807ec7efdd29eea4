"""The device of a run: a warning where its precision is slow there."""

import pytest
import torch

from trainyard_trainer.engine.device import slow_precision

CPU = torch.device("cpu")


@pytest.fixture
def without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)


@pytest.mark.usefixtures("without_bf16")
def test_bf16_on_a_cpu_without_its_instructions_is_a_warning() -> None:
    assert "Set optimization.precision: fp32" in (slow_precision(CPU, "bf16") or "")


@pytest.mark.usefixtures("without_bf16")
@pytest.mark.parametrize(("device", "precision"), [(CPU, "fp32"), (torch.device("cuda"), "bf16")])
def test_fp32_and_gpus_need_no_warning(device: torch.device, precision: str) -> None:
    assert slow_precision(device, precision) is None


def test_bf16_on_a_cpu_with_its_instructions_needs_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert slow_precision(CPU, "bf16") is None
