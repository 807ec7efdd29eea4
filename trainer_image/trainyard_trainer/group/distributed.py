"""A group of several processes over torch.distributed: gloo on the CPU, NCCL between GPUs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store

from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.exception_mapping import is_peer_loss, peer_lost_error
from trainyard_trainer.group.group import Group, Poll
from trainyard_trainer.group.membership import Membership
from trainyard_trainer.group.sharding import full_tensor, shard_blocks

RENDEZVOUS_TIMEOUT_SECONDS = 600
"""Longest wait for the other processes to start."""
COLLECTIVE_TIMEOUT_SECONDS = 1800
"""Timeout of one collective operation; a process may be blocked by a slow volume."""
_POLL_SECONDS = 0.1


class DistributedGroup(Group):
    """A group of several processes, as seen by one of them."""

    def __init__(self, member: Membership, device: torch.device, store: Store) -> None:
        self.rank = member.rank
        self.world_size = member.world_size
        self._node = member.rank // member.local_world_size
        self._is_local_main = member.local_rank == 0
        self._device = device
        self._store = store
        self._turns = 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over all processes, on the CPU without GPU synchronization."""
        numbers = torch.tensor([float(value) for value in values], dtype=torch.float64)
        with _map_peer_errors():
            dist.all_reduce(numbers)
        found: list[float] = numbers.tolist()
        return found

    def all_gather(self, value: Any) -> list[Any]:
        """Return the JSON values of all processes, by rank."""
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with _map_peer_errors():
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
            dist.all_gather(lengths, torch.tensor([len(data)]))
            longest = max(int(length) for length in lengths)
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(data)] = data
            found = [torch.zeros_like(padded) for _ in range(self.world_size)]
            dist.all_gather(found, padded)
        return [json.loads(bytes(one[: int(length)].tolist())) for one, length in zip(found, lengths, strict=True)]

    @contextmanager
    def main_process_first(self, poll: Poll, shared: dict[str, str] | None = None) -> Iterator[None]:
        """Run a block in the main process, then in the local main process of each pod, then in the others."""
        self._turns += 1
        main_done, local_main_done = f"turn-{self._turns}", f"turn-{self._turns}-{self._node}"
        if not self.is_main_process:
            received = self._await(main_done if self._is_local_main else local_main_done, poll)
            if shared is not None:
                shared.update(received)
        yield
        if self._is_local_main:
            with _map_peer_errors():
                for key in (local_main_done, main_done) if self.is_main_process else (local_main_done,):
                    self._store.set(key, json.dumps(shared or {}))

    def _await(self, key: str, poll: Poll) -> dict[str, str]:
        with _map_peer_errors():
            while not self._store.check([key]):
                poll()
                time.sleep(_POLL_SECONDS)
            found: dict[str, str] = json.loads(self._store.get(key))
        return found

    def shard(self, model: nn.Module) -> None:
        """Shard a model's parameters over the processes (FSDP2)."""
        with _map_peer_errors():
            shard_blocks(model, self._device)
        self.is_sharded = True

    def full_tensor(self, tensor: Tensor) -> Tensor:
        """Return the full tensor; for a sharded tensor, all processes must call this."""
        with _map_peer_errors():
            return full_tensor(tensor)

    def reduce_gradients(self, parameters: Sequence[nn.Parameter], *, is_complete: bool) -> None:
        """Sum the gradients over all processes, one all-reduce per dtype; sharded gradients are already summed."""
        stopping, *used = self.sum([not is_complete, *(parameter.grad is not None for parameter in parameters)])
        self._raise_if_stopping(is_stopping=stopping > 0)
        if self.is_sharded:
            return
        trained = [parameter for parameter, times in zip(parameters, used, strict=True) if times]
        for dtype in sorted({parameter.dtype for parameter in trained}, key=str):
            with _map_peer_errors():
                _sum_gradients([parameter for parameter in trained if parameter.dtype == dtype])

    def close(self) -> None:
        """Leave the group."""
        with suppress(RuntimeError):
            dist.destroy_process_group()


def join(member: Membership, device: torch.device) -> DistributedGroup:
    """Join the process group.

    Raises:
        ConfigurationError: The environment names no valid rendezvous address.
        PeerLostError: Another process did not join in time.
    """
    with _map_peer_errors():
        try:
            store = dist.TCPStore(  # type: ignore[attr-defined] # missing in the stubs
                member.master_address,
                member.master_port,
                member.world_size,
                is_master=member.rank == 0,
                timeout=timedelta(seconds=RENDEZVOUS_TIMEOUT_SECONDS),
                wait_for_workers=False,
            )
        except ValueError as error:
            raise ConfigurationError(
                f"The group cannot rendezvous at {member.master_address}:{member.master_port}: {error}.",
                "Check MASTER_ADDR and MASTER_PORT.",
            ) from error
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=member.rank,
            world_size=member.world_size,
            timeout=timedelta(seconds=COLLECTIVE_TIMEOUT_SECONDS),
            device_id=device if device.type == "cuda" else None,
        )
    return DistributedGroup(member, device, PrefixStore("trainyard", store))


def _sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """All-reduce one flat buffer; the gradients become views of it."""
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
    buffer = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(buffer)
    parts = torch.split(buffer, [gradient.numel() for gradient in gradients])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


@contextmanager
def _map_peer_errors() -> Iterator[None]:
    """Map errors of torch.distributed.

    Raises:
        PeerLostError: A process of the group is unreachable.
    """
    try:
        yield
    except RuntimeError as error:
        if is_peer_loss(error):
            raise peer_lost_error(error) from error
        raise
