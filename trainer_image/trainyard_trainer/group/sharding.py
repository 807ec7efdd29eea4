"""A model's parameters spread over the processes of a group (FSDP2), and tensors of it in one piece again.

torch's modules for that are imported where a group needs them: they take their time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard_blocks(model: nn.Module, device: torch.device) -> None:
    """Spread every parameter along its first dimension; a block is gathered for its own pass and no longer.

    Gradients are summed, not averaged, in fp32, after each backward pass: whole ones would need as much memory on
    every device as the model itself.

    Args:
        model: All its parameters are trained, and are the same in all processes.
        device: Where the model is.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for block in _blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(enable=True)


def is_sharded_tensor(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether each process holds a part of the tensor only."""
    if type(tensor) in {Tensor, nn.Parameter}:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local_shard(tensor: Tensor) -> Tensor:
    """What this process holds of the tensor."""
    return tensor.to_local() if is_sharded_tensor(tensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The tensor in one piece, on every process; all of them ask for it. One that is not spread is returned itself."""
    return tensor.full_tensor() if is_sharded_tensor(tensor) else tensor


def shard_like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, spread as `model` is if that is; every process has the whole one."""
    if not is_sharded_tensor(model):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    local = tensor.to(model.device)
    return distribute_tensor(local, model.device_mesh, model.placements, src_data_rank=None)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost lists of modules: a transformer's layers."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)
