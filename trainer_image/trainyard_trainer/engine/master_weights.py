"""fp32 copies of trained 16-bit parameters, on which the optimizer works.

bf16 has 8 significant bits: an update of less than 1/256 of a weight rounds to nothing, and with it most updates of
fine-tuning, those of the norms first. Computing in bf16 and updating in fp32 is the usual mixed precision
(https://arxiv.org/abs/1710.03740).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainyard_trainer.engine.task import ParameterGroup
from trainyard_trainer.group.sharding import shard_like

_SHORT_TYPES = frozenset({torch.bfloat16, torch.float16})


class MasterWeights:
    """The parameters that an optimizer updates: fp32 copies of the model's 16-bit ones, the others themselves.

    Args:
        groups: The trained parameters of a model.

    Attributes:
        groups: The same groups, with the copies in place of 16-bit parameters.
    """

    def __init__(self, groups: Sequence[ParameterGroup]) -> None:
        self._copies: list[tuple[nn.Parameter, nn.Parameter]] = []
        self.groups = [
            replace(group, parameters=[self._updated(parameter) for parameter in group.parameters]) for group in groups
        ]

    def take_gradients(self) -> None:
        """Move the gradients of 16-bit parameters to their copies, in fp32, one at a time."""
        for parameter, copy in self._copies:
            if parameter.grad is not None:
                copy.grad, parameter.grad = parameter.grad.float(), None

    @torch.no_grad()
    def publish(self) -> None:
        """Round the updated copies into the model's parameters."""
        for parameter, copy in self._copies:
            parameter.copy_(copy)

    def tensors(self) -> dict[str, Tensor]:
        """Return the copies (no copies of them) by their number, for a checkpoint."""
        return {str(number): copy.detach() for number, (_, copy) in enumerate(self._copies)}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` returned; a copy that is not in it starts from its parameter."""
        for number, (parameter, copy) in enumerate(self._copies):
            saved = tensors.get(str(number))
            copy.copy_(parameter if saved is None else shard_like(saved, copy))

    def _updated(self, parameter: nn.Parameter) -> nn.Parameter:
        if parameter.dtype not in _SHORT_TYPES:
            return parameter
        copy = nn.Parameter(parameter.detach().float())
        self._copies.append((parameter, copy))
        return copy
