"""The copy of a checkpoint is taken in the stream's order; no step waits for it."""

from __future__ import annotations

from typing import Any

import torch

from trainyard_trainer.engine.host_copy import HostCopy


def test_later_steps_do_not_change_copy() -> None:
    copy = HostCopy()
    tensors = {"weights": torch.zeros(50_000_000, device="cuda"), "step": torch.tensor(1.0)}
    for value in (1.0, 2.0):
        tensors["weights"].fill_(value)
        copies, wait = copy.take(tensors)
        tensors["weights"].fill_(-1)
        assert copies["weights"].is_pinned()
        wait()
        assert bool((copies["weights"] == value).all())
    copy.release()


def test_copy_does_not_wait_for_gpu() -> None:
    copy, work = HostCopy(), torch.randn(8192, 8192, device="cuda")
    tensors = {"weights": torch.ones(1_000_000, device="cuda")}
    copy.take(tensors)
    torch.cuda.synchronize()
    for _ in range(50):
        work = work @ work
    done: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record()
    _copies, wait = copy.take(tensors)
    assert not done.query()
    wait()
    assert done.query()
    copy.release()
