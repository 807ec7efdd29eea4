"""A copy of tensors in host memory, taken between two steps without waiting for the GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainyard_trainer.group.sharding import is_sharded_tensor, local_shard

_ALIGNMENT = 64
"""Bytes; more than any element type needs."""
_PORTABLE = 1
"""cudaHostRegisterPortable: pinned for every device."""


class HostCopy:
    """Memory for one copy, reused by every later one: a run's state is held twice, never three times."""

    def __init__(self) -> None:
        self._memory = np.empty(0, dtype=np.uint8)
        self._copies: dict[int, Tensor] = {}
        """By offset in the memory."""
        self._is_pinned = False

    def take(
        self, tensors: Mapping[str, Tensor], whole: Callable[[Tensor], Tensor] = lambda tensor: tensor
    ) -> tuple[dict[str, Tensor], Callable[[], None]]:
        """Copy tensors, overwriting the previous copy.

        Tensors of a GPU are copied in the order of its stream, so a later step cannot change what is copied. Tensors
        that are the same (tied weights) are the same in the copy.

        Args:
            tensors: What to copy.
            whole: Gathers a sharded tensor; called for each, in their order.

        Returns:
            Contiguous tensors on the CPU by name, and a function that waits for the GPU: call it before reading them.
        """
        places, size = _layout(tensors)
        on_gpu = [tensor for tensor in tensors.values() if tensor.is_cuda]
        if size > len(self._memory):
            self.release()
            self._memory = np.empty(size, dtype=np.uint8)
            if on_gpu:
                self._pin()
        originals = {place: tensors[name].detach() for name, place in places.items()}
        if not self._fits(originals):
            self._copies = {place: self._tensor_at(place, tensor) for place, tensor in originals.items()}
        copied: set[int] = set()
        for name, place in places.items():
            # Every process takes part in gathering every sharded tensor, also where it sees that some are tied.
            if place not in copied or is_sharded_tensor(tensors[name]):
                self._copies[place].copy_(whole(tensors[name].detach()), non_blocking=True)
            copied.add(place)
        return {name: self._copies[place] for name, place in places.items()}, _wait_for(on_gpu)

    def release(self) -> None:
        """Release the memory."""
        if self._is_pinned:
            _check(_cudart().cudaHostUnregister(self._memory.ctypes.data))
            self._is_pinned = False
        self._copies = {}
        self._memory = np.empty(0, dtype=np.uint8)

    def _pin(self) -> None:
        # torch's allocator of pinned memory rounds every tensor up to a power of two.
        _check(_cudart().cudaHostRegister(self._memory.ctypes.data, len(self._memory), _PORTABLE))
        self._is_pinned = True

    def _fits(self, originals: Mapping[int, Tensor]) -> bool:
        """Whether shapes and types are those of the previous copy."""
        return self._copies.keys() == originals.keys() and all(
            (copy.shape, copy.dtype) == (originals[place].shape, originals[place].dtype)
            for place, copy in self._copies.items()
        )

    def _tensor_at(self, place: int, like: Tensor) -> Tensor:
        # From numpy, so that every tensor has its own storage: writers treat a shared storage as one tensor.
        memory = torch.from_numpy(self._memory[place : place + like.nbytes])
        return memory.view(like.dtype).view(like.shape)


def _cudart() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _check(result: Any) -> None:
    if int(result) != 0:
        raise torch.cuda.CudaError(int(result))


def _layout(tensors: Mapping[str, Tensor]) -> tuple[dict[str, int], int]:
    """Return the offset of each tensor in bytes, and the total size."""
    places: dict[str, int] = {}
    known: dict[tuple[object, ...], int] = {}
    size = 0
    for name, tensor in tensors.items():
        identity = (tensor.device, local_shard(tensor.detach()).data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.nbytes == 0 or identity not in known:
            known[identity] = size
            size += -(-max(1, tensor.nbytes) // _ALIGNMENT) * _ALIGNMENT
        places[name] = known[identity]
    return places, size


def _wait_for(on_gpu: list[Tensor]) -> Callable[[], None]:
    events = []
    for device in {tensor.device for tensor in on_gpu}:
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        events.append(event)

    def wait() -> None:
        for event in events:
            event.synchronize()

    return wait
