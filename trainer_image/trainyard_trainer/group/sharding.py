"""Sharding of a model's parameters over the processes of a group (FSDP2).

The FSDP modules of torch are imported on use because their import is slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def shard_blocks(model: nn.Module, device: torch.device) -> None:
    """Shard every parameter along its first dimension; each block is gathered for its own pass only.

    Gradients are summed, not averaged, in fp32 after each backward pass: unsharded gradients would need as much memory
    on every device as the model.

    Args:
        model: A model whose parameters are all trained and equal in all processes.
        device: Device of the model.
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
    """Return whether each process holds only a shard of the tensor."""
    if type(tensor) in {Tensor, nn.Parameter}:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local_shard(tensor: Tensor) -> Tensor:
    """Return this process's shard, or the tensor itself if it is not sharded."""
    return tensor.to_local() if is_sharded_tensor(tensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor; for a sharded tensor, all processes must call this."""
    return tensor.full_tensor() if is_sharded_tensor(tensor) else tensor


def shard_like(tensor: Tensor, target: Tensor) -> Tensor:
    """Return a full tensor sharded like `target`, or itself if `target` is not sharded."""
    if not is_sharded_tensor(target):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    local = tensor.to(target.device)
    return distribute_tensor(local, target.device_mesh, target.placements, src_data_rank=None)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the members of the outermost module lists: a transformer's layers."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)
