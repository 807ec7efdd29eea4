from pathlib import Path

import pytest
import torch

from tests.unit.trainer.tasks.text.memory.configs import llama_8b, run
from tests.unit.trainer.toy import ToyTask, run_config, train_toy
from trainyard_trainer.engine.throughput import Throughput
from trainyard_trainer.tasks.text.memory.estimate import flops_per_token


class Hand:
    """A clock that is set by hand."""

    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> str:
        return ""


def test_data_wait_is_share_since_last_log_line() -> None:
    clock = Hand()
    throughput = Throughput(clock, None, torch.device("cpu"))
    with throughput.waiting():
        clock.seconds += 1
    clock.seconds += 3
    assert throughput.take(500) == {"dataWait": 0.25}
    clock.seconds += 2
    assert throughput.take(600) == {"dataWait": 0.0}


def test_mfu_is_share_of_peak_flops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA A100-SXM4-80GB")
    clock = Hand()
    throughput = Throughput(clock, 31.2e9, torch.device("cuda", 0))
    throughput.begin(1000)
    clock.seconds += 2
    assert throughput.take(11_000)["mfu"] == pytest.approx(0.5)


def test_adapter_needs_fewer_operations() -> None:
    full, lora = (flops_per_token(run(method), llama_8b()) for method in ("full", "lora"))
    assert full == pytest.approx(6 * 7.5e9, rel=0.01)
    assert lora == pytest.approx(4 * 7.5e9, rel=0.02)


def test_data_wait_is_logged_but_not_saved(tmp_path: Path) -> None:
    termination = train_toy(run_config(tmp_path), ToyTask())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert sum('"dataWait"' in line for line in lines) == 6
    assert "dataWait" not in termination.metrics
