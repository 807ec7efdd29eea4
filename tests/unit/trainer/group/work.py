"""Bodies of the processes of test groups; imported by the process that forks them."""

import json
import os
import signal
import time
from pathlib import Path

import bitsandbytes  # noqa: F401 - imported once
import peft.tuners.lora.bnb
import peft.utils.transformers_weight_conversion  # noqa: F401
import pytest
import tensorboard.compat.proto.event_pb2
import tensorboard.summary  # noqa: F401
import torch
import torch.distributed.fsdp
import transformers.models.llama.modeling_llama
import transformers.models.qwen2
import transformers.models.qwen3.modeling_qwen3  # noqa: F401
from torch import Tensor, nn
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from tests.unit.trainer import toy
from tests.unit.trainer.definitions import replace_llm
from trainyard_crds.report import Gpu
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer import bootstrap
from trainyard_trainer.engine import session  # noqa: F401
from trainyard_trainer.engine.task import Loaded, MicroBatch
from trainyard_trainer.errors import PeerLostError, StopRequested
from trainyard_trainer.group.distributed import join
from trainyard_trainer.group.membership import Membership
from trainyard_trainer.report.gpu import gpus_of_all_pods
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.llm.task import LlmTask

torch.set_num_threads(1)
get_checkpoint_conversion_mapping("llama")  # compiles the patterns of all models, once for all forked processes
CPU = torch.device("cpu")


def check_collectives(member: Membership) -> None:
    """Check every collective operation."""
    group, rank, world = join(member, CPU), member.rank, member.world_size
    assert group.sum([1, rank, 0.5]) == [world, sum(range(world)), world / 2]
    values = [{"rank": one, "text": "x" * one * 100} for one in range(world)]
    assert group.all_gather(values[rank]) == values
    assert group.broadcast(values[rank]) == values[0]
    assert [item for item, _ in group.partition([*range(world), "last"])] == ([0, "last"] if rank == 0 else [rank])
    assert group.weighted_mean(range(5), lambda item: (2.0 * item, 1.0), lambda: None) == 4.0
    stop = StopFlag()
    assert group.check_stop(stop.check, rank + 1) == [world * (world + 1) / 2]
    if rank == world - 1:
        stop.request()
    for stopping in (
        lambda: group.check_stop(stop.check),
        lambda: group.weighted_mean(range(9), lambda _item: (1.0, 1.0), stop.check),
        lambda: group.reduce_gradients([], is_complete=not stop.requested),
    ):
        with pytest.raises(StopRequested):
            stopping()
    group.close()


def take_turns(member: Membership, directory: Path) -> None:
    """Check that the others run after the main process."""
    group = join(member, CPU)
    for turn in range(3):
        with group.main_process_first(lambda: None):
            if group.is_main_process:
                time.sleep(0.2)
                (directory / str(turn)).write_text("done")
            assert (directory / str(turn)).read_text() == "done"
    group.sum([1.0])  # rank 0 hosts the store that the others poll
    group.close()


def sample_gpus(member: Membership) -> None:
    """The local main process of each pod samples its two GPUs; in the second sample the driver of pod 0 fails."""
    group, pod = join(member, CPU), member.rank // member.local_world_size
    has_driver = member.local_rank == 0

    def sample() -> list[Gpu]:
        names = [f"{pod}.{number}" for number in range(2)] if has_driver else []
        return [Gpu(name=name, memory_used=1, memory_total=2, utilization=3) for name in names]

    sample_all = gpus_of_all_pods(sample, pod, group.all_gather)
    assert [(gpu.name, gpu.pod) for gpu in sample_all()] == [("0.0", 0), ("0.1", 0), ("1.0", 1), ("1.1", 1)]
    has_driver = has_driver and pod == 1
    assert [(gpu.name, gpu.pod) for gpu in sample_all()] == [("1.0", 1), ("1.1", 1)]
    group.close()


def take_turns_by_pods(member: Membership, directory: Path) -> None:
    """Each pod has a directory that its local main process fills after the main process has run."""
    group, pod = join(member, CPU), directory / f"pod-{member.rank // member.local_world_size}"
    shared = {"revision": "1"} if group.is_main_process else {}
    with group.main_process_first(lambda: None, shared):
        if group.is_main_process:
            time.sleep(0.2)
            (directory / "shared").write_text("of all")
            shared["revision"] = "2"
        if member.local_rank == 0:
            time.sleep(0.2)
            pod.mkdir()
        assert pod.is_dir()
        assert (directory / "shared").read_text() == "of all"
        assert shared == {"revision": "2"}
    group.sum([1.0])  # rank 0 hosts the store that the others poll
    group.close()


def reduce_gradients(member: Membership, directory: Path) -> None:
    """Reduce gradients of several dtypes, of which some exist in one process or in none."""
    group, rank = join(member, CPU), member.rank
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 2), (4,), (5,), (1,))]
    parameters.append(nn.Parameter(torch.zeros(7, dtype=torch.bfloat16)))
    for number in (0, 1, 4):
        parameters[number].grad = torch.full_like(parameters[number], rank + 1.0)
    if rank == 0:
        parameters[2].grad = torch.arange(5.0)
    group.reduce_gradients(parameters, is_complete=True)
    total = sum(range(1, member.world_size + 1))
    found = [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters]
    assert found[0] == [[total, total]] * 3
    assert found[2] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert found[3] is None, "a parameter without gradient must stay untouched by the optimizer"
    assert found[4] == [total] * 7
    (directory / str(rank)).write_text(json.dumps(found))
    group.close()


def lose_peer(member: Membership, how: str) -> int:
    """Kill one process while the others wait for it in a collective operation."""
    group = join(member, CPU)
    group.sum([1.0])
    if member.rank == member.world_size - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        if how == "sum":
            group.sum([1.0])
        elif how == "all_gather":
            group.all_gather(1)
        else:
            parameter = nn.Parameter(torch.zeros(100_000))
            parameter.grad = torch.ones(100_000)
            group.reduce_gradients([parameter], is_complete=True)
    except PeerLostError as error:
        return int(error.exit_code)
    return 1


def train_toy(member: Membership, config: RunConfig, evaluations: list[float]) -> int:
    """Run a process of a toy run with given evaluation results."""
    task = toy.ToyTask(evaluations=evaluations)
    replace_llm(lambda: task)
    return bootstrap.train(config, stop=StopFlag(), environ=member.environ()).exit_code


class Task(LlmTask):
    """Injects a fault into one process at one forward pass."""

    def __init__(self, stop: StopFlag, rank: int, fault: tuple[str, int, int] | None) -> None:
        self._stop = stop
        self._fault = fault if fault is not None and fault[1] in {rank, -1} else None
        self._calls = 0

    def loss(self, loaded: Loaded, batch: MicroBatch) -> Tensor:
        self._calls += 1
        if self._fault is not None and self._calls == self._fault[2]:
            if self._fault[0] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self._fault[0] == "stop":
                self._stop.request()
            if self._fault[0] == "nan":
                return super().loss(loaded, batch) * float("nan")
        return super().loss(loaded, batch)


def train(
    member: Membership, config: RunConfig, fault: tuple[str, int, int] | None = None, output: Path | None = None
) -> int:
    """Run one process of a run.

    Args:
        member: The process.
        config: The run.
        fault: `kill`, `stop` or `nan`, the rank (-1: all), and the number of the forward pass.
        output: Directory for the output of the process.
    """
    stop = StopFlag()
    if output is not None:
        file = os.open(output / f"{member.rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
    replace_llm(lambda: Task(stop, member.rank, fault))
    return bootstrap.train(config, stop=stop, environ=member.environ()).exit_code
