"""Groups of real processes over gloo, forked from a process that has imported everything."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from typing import Any

from tests.unit.timeouts import TIMEOUT
from tests.unit.trainer.fork_server import fork_server
from tests.unit.trainer.group.launching import reserved_port
from trainyard_trainer.group.membership import Membership, Node, local_members


def run_group(world_size: int, work: Callable[..., int | None], *arguments: Any, nodes: int = 1) -> list[int | None]:
    """Run processes that each call `work(member, *arguments)` and end with the code it returns.

    With several nodes, the processes are distributed over them in their membership.

    Returns:
        Exit codes by rank, negative for signals; None for a process that did not exit in time and was killed.
    """
    with reserved_port() as port:
        return _wait_for(_start_group(world_size, work, *arguments, nodes=nodes, port=port))


def _start_group(
    world_size: int, work: Callable[..., int | None], *arguments: Any, nodes: int, port: int
) -> list[ForkServerProcess]:
    context = fork_server()
    places = [Node(index=index, count=nodes, port=port) for index in range(nodes)]
    members = [member for node in places for member in local_members(world_size // nodes, node)]
    processes = [context.Process(target=_run, args=(work, member, arguments), daemon=True) for member in members]
    for process in processes:
        process.start()
    return processes


def _wait_for(processes: Sequence[ForkServerProcess]) -> list[int | None]:
    for process in processes:
        process.join(TIMEOUT)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def _run(work: Callable[..., int | None], member: Membership, arguments: tuple[Any, ...]) -> None:
    os.environ.update(member.environ())
    code = 1
    try:
        code = work(member, *arguments) or 0
    except BaseException:  # noqa: BLE001 - a child's outermost frame
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
