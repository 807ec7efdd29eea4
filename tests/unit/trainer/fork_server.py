"""Processes forked from a fork server, which imports the trainer's libraries once."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import NoReturn

from trainyard_trainer import cli
from trainyard_trainer.group.launcher import launch

Program = Callable[[], int]
"""Runs `sys.argv` and returns the exit code; a function of a module."""


def fork_server() -> ForkServerContext:
    """Return the context of this test process's fork server, which starts with the first process."""
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "tests.unit.trainer.group.work"])
    return context


def start_program(
    program: Program, *arguments: str, environ: Mapping[str, str], directory: Path, output: Path
) -> ForkServerProcess:
    """Start a program as a pod would, except that its libraries are already imported.

    If it launches a group, the members are forked and run the same program.

    Args:
        program: The program.
        arguments: Its command line.
        environ: Its whole environment.
        directory: Its working directory.
        output: File for its output and errors.
    """
    process = fork_server().Process(
        target=_run, args=(program, arguments, dict(environ), directory, output), daemon=True
    )
    process.start()
    return process


def _run(
    program: Program, arguments: tuple[str, ...], environ: Mapping[str, str], directory: Path, output: Path
) -> NoReturn:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(directory)
    sys.argv = ["trainyard-trainer", *arguments]
    setattr(cli, "launch", partial(launch, start=partial(_fork_member, program)))  # noqa: B010 - mypy takes it for private
    _exit_with(program, environ)


def _fork_member(program: Program, environ: Mapping[str, str]) -> int:
    """Start a member of a group and return its process ID."""
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        _exit_with(program, environ)
    return pid


def _exit_with(program: Program, environ: Mapping[str, str]) -> NoReturn:
    """Run a program in a forked process and exit with its code."""
    code = 99
    try:
        _close_files()
        os.environ.clear()
        os.environ.update(environ)
        code = program()
    except BaseException:  # noqa: BLE001 - a forked child must not continue in its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _close_files() -> None:
    """Close the files that a new program would not inherit."""
    for file in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        try:
            if not os.get_inheritable(file):
                os.close(file)
        except OSError:  # the directory's own
            continue
