"""A group of several processes, by torch.distributed: gloo between the hosts, NCCL between GPUs."""

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
from trainyard_trainer.exception_mapping import is_lost_peer, lost_peer
from trainyard_trainer.group.group import Group, Poll
from trainyard_trainer.group.membership import Membership
from trainyard_trainer.group.sharding import full_tensor, shard_blocks

RENDEZVOUS_TIMEOUT_SECONDS = 600
"""How long a process waits for the others to start."""
COLLECTIVE_TIMEOUT_SECONDS = 1800
"""How long a process that is there may not answer: one may wait for a slow volume."""
_POLL_SECONDS = 0.1


class DistributedGroup(Group):
    """This process's side of a group."""

    def __init__(self, member: Membership, device: torch.device, store: Store) -> None:
        self.rank = member.rank
        self.world_size = member.world_size
        self._node = member.rank // member.local_world_size
        self._is_first_here = member.local_rank == 0
        self._device = device
        self._store = store
        self._turns = 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes; on the host, no GPU is waited for."""
        numbers = torch.tensor([float(value) for value in values], dtype=torch.float64)
        with _peers():
            dist.all_reduce(numbers)
        found: list[float] = numbers.tolist()
        return found

    def all_gather(self, value: Any) -> list[Any]:
        """The JSON values of all processes, by their ranks."""
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        with _peers():
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
            dist.all_gather(lengths, torch.tensor([len(data)]))
            longest = max(int(length) for length in lengths)
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(data)] = data
            found = [torch.zeros_like(padded) for _ in range(self.world_size)]
            dist.all_gather(found, padded)
        return [json.loads(bytes(one[: int(length)].tolist())) for one, length in zip(found, lengths, strict=True)]

    @contextmanager
    def main_process_first(self, poll: Poll, told: dict[str, str] | None = None) -> Iterator[None]:
        """Let the first process do something, then the first one of each pod; they wait as long as it takes."""
        self._turns += 1
        first, first_here = f"turn-{self._turns}", f"turn-{self._turns}-{self._node}"
        if not self.is_main_process:
            heard = self._await(first if self._is_first_here else first_here, poll)
            if told is not None:
                told.update(heard)
        yield
        if self._is_first_here:
            with _peers():
                for key in (first_here, first) if self.is_main_process else (first_here,):
                    self._store.set(key, json.dumps(told or {}))

    def _await(self, key: str, poll: Poll) -> dict[str, str]:
        with _peers():
            while not self._store.check([key]):
                poll()
                time.sleep(_POLL_SECONDS)
            found: dict[str, str] = json.loads(self._store.get(key))
        return found

    def shard(self, model: nn.Module) -> None:
        """Spread a model's parameters over the processes (FSDP2)."""
        with _peers():
            shard_blocks(model, self._device)
        self.is_sharded = True

    def full_tensor(self, tensor: Tensor) -> Tensor:
        """A tensor in one piece; for a sharded one, all processes ask for it."""
        with _peers():
            return full_tensor(tensor)

    def reduce_gradients(self, parameters: Sequence[nn.Parameter], *, is_complete: bool) -> None:
        """Sum the gradients over all processes, in one piece for each type; sharded ones are summed already."""
        stopping, *used = self.sum([not is_complete, *(parameter.grad is not None for parameter in parameters)])
        self._agree(is_stopping=stopping > 0)
        if self.is_sharded:
            return
        trained = [parameter for parameter, times in zip(parameters, used, strict=True) if times]
        for dtype in sorted({parameter.dtype for parameter in trained}, key=str):
            with _peers():
                _sum_gradients([parameter for parameter in trained if parameter.dtype == dtype])

    def close(self) -> None:
        """Leave the group."""
        with suppress(RuntimeError):
            dist.destroy_process_group()


def join(member: Membership, device: torch.device) -> DistributedGroup:
    """Meet the others.

    Raises:
        ConfigurationError: The environment names no place to meet.
        PeerLostError: One of them did not come.
    """
    with _peers():
        try:
            store = dist.TCPStore(  # type: ignore[attr-defined] # it is there, but not in what mypy sees
                member.master_address,
                member.master_port,
                member.world_size,
                is_master=member.rank == 0,
                timeout=timedelta(seconds=RENDEZVOUS_TIMEOUT_SECONDS),
                wait_for_workers=False,
            )
        except ValueError as error:
            raise ConfigurationError(
                f"The group cannot meet at {member.master_address}:{member.master_port}: {error}.",
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
    """One sum over one buffer; afterwards the gradients lie in it."""
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
    buffer = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(buffer)
    parts = torch.split(buffer, [gradient.numel() for gradient in gradients])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)


@contextmanager
def _peers() -> Iterator[None]:
    """Translate errors of the library.

    Raises:
        PeerLostError: A process of the group cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        if is_lost_peer(error):
            raise lost_peer(error) from error
        raise
