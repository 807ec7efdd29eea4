"""Every random generator of the process: seeding, capturing, restoring."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RngState:
    """States of torch's CPU generator, the GPU's if there is one, Python's and numpy's."""

    cpu: Tensor
    cuda: Tensor | None
    python: tuple[Any, ...]
    numpy: dict[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """Return the parts that are tensors, by name."""
        parts = {"cpu": self.cpu, "numpy": torch.from_numpy(self.numpy["state"]["key"].astype(np.int64))}
        return parts if self.cuda is None else {**parts, "cuda": self.cuda}

    def scalars(self) -> dict[str, Any]:
        """Return the rest as JSON values."""
        numpy = {**self.numpy, "state": {"pos": int(self.numpy["state"]["pos"])}}
        return {"python": list(self.python), "numpy": numpy}

    @classmethod
    def from_parts(cls, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> RngState:
        """Rebuild a state from what `tensors` and `scalars` returned."""
        version, internal, gauss = scalars["python"]
        key = tensors["numpy"].numpy().astype(np.uint32)
        numpy = {**scalars["numpy"], "state": {"key": key, "pos": scalars["numpy"]["state"]["pos"]}}
        return cls(tensors["cpu"], tensors.get("cuda"), (version, tuple(internal), gauss), numpy)

    def to_json(self) -> dict[str, Any]:
        """Return the whole state as JSON values."""
        parts = {name: tensor.tolist() for name, tensor in self.tensors().items()}
        return {"tensors": parts, "scalars": self.scalars()}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RngState:
        """Parse what `to_json` returned."""
        types = {"numpy": torch.int64}
        parts = {
            name: torch.tensor(values, dtype=types.get(name, torch.uint8))
            for name, values in document["tensors"].items()
        }
        return cls.from_parts(parts, document["scalars"])


def seed_everything(seed: int) -> None:
    """Seed every generator."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def capture_rng(device: torch.device) -> RngState:
    """Return the states of every generator that training on the device may draw from."""
    return RngState(
        cpu=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        python=random.getstate(),
        numpy=np.random.get_state(legacy=False),
    )


def restore_rng(state: RngState, device: torch.device) -> None:
    """Restore every generator; a GPU's state is ignored by a run that resumes without one."""
    torch.set_rng_state(state.cpu)
    if state.cuda is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state.cuda, device)
    random.setstate(state.python)
    np.random.set_state(state.numpy)


@contextmanager
def preserved_state(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore random generators and train/eval modes on leaving the context."""
    state = capture_rng(device)
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        restore_rng(state, device)
