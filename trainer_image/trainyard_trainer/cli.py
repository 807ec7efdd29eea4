"""The command line (`train`, `export`, `plan`, `result`, `compare`, `data`), which maps errors to exit codes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from trainyard_crds.exitcodes import ExitCode
from trainyard_crds.report import Outcome, Termination
from trainyard_crds.runconfig import RunConfig
from trainyard_trainer.configuration import load_config
from trainyard_trainer.engine.definition import TaskDefinition
from trainyard_trainer.errors import ConfigurationError, NotFoundError, TrainerError
from trainyard_trainer.group.launcher import bind_to_launcher, launch
from trainyard_trainer.group.membership import LAUNCHER_ENV, Node, membership, this_node
from trainyard_trainer.group.rendezvous import rendezvous
from trainyard_trainer.report.termination import read_result, termination_of, write_termination
from trainyard_trainer.stop import StopFlag
from trainyard_trainer.tasks.llm import compare_command
from trainyard_trainer.tasks.registry import definition_of
from trainyard_trainer.tasks.text import data_command as data


def run_command(stop: StopFlag) -> int:
    """Run the process's command line and write a termination message in every case.

    Returns:
        The exit code.
    """
    environ = os.environ
    try:
        termination = _dispatch(_parse(sys.argv[1:]), stop, environ)
    except TrainerError as error:
        termination = termination_of(error)
    except Exception as error:  # noqa: BLE001 - the outermost frame
        termination = _unexpected(error)
    is_group_member = LAUNCHER_ENV in environ  # its launcher prints the error
    if termination.exit_code != ExitCode.FINISHED and not is_group_member:
        print(f"{termination.reason}: {termination.message} {termination.advice}".rstrip(), file=sys.stderr)  # noqa: T201
    write_termination(termination, environ)
    return termination.exit_code


def _dispatch(arguments: argparse.Namespace, stop: StopFlag, environ: Mapping[str, str]) -> Termination:
    if arguments.command == "result":
        return _result(arguments.run_directory)
    if arguments.command == "compare":
        return _compare(arguments, stop)
    if arguments.command == "data":
        return _data(arguments, stop)
    config = load_config(arguments.config)
    definition = definition_of(config)  # before the launcher starts processes
    if arguments.command == "plan":
        return _plan(config, definition, arguments.device_memory, environ)
    if arguments.command == "export":
        return _export(config, stop, environ)
    return _train(config, stop, environ)


def _export(config: RunConfig, stop: StopFlag, environ: Mapping[str, str]) -> Termination:
    stop.check()

    from trainyard_trainer.export.export_command import export

    return export(config, stop=stop, environ=environ)


def _train(config: RunConfig, stop: StopFlag, environ: Mapping[str, str]) -> Termination:
    member = membership(environ)
    node = None if member else this_node(config.nodes, environ)
    is_owner = node is None or node.index == 0
    if (finished := read_result(Path(config.run_directory))) is not None:
        if is_owner:
            _clear_leftovers(Path(config.run_directory))
        print(f"{config.run_directory} holds a finished run; to train again, use another runDirectory.")  # noqa: T201
        return finished
    if node is not None:
        return _train_in_pods(config, node, stop, environ)
    if member is None and config.processes > 1:
        stop.check()
        return launch(config.processes, stop=stop, environ=environ)
    if member is None:
        stop.check()  # a group member must not exit before the rendezvous
    else:
        bind_to_launcher(environ)

    from trainyard_trainer.bootstrap import train

    return train(config, stop=stop, environ=environ)


def _train_in_pods(config: RunConfig, node: Node, stop: StopFlag, environ: Mapping[str, str]) -> Termination:
    """Run this pod's part of a multi-node run."""
    from trainyard_trainer.report.console import create_console

    console = create_console(sys.stdout)
    peers = rendezvous(
        node,
        json.dumps([config.run_directory, config.nodes, config.processes]),
        stop=stop,
        log_event=lambda kind, text: console.message("info", kind, text),
        find_result=lambda: read_result(Path(config.run_directory)),
    )
    if isinstance(peers, Termination):
        return peers
    if node.index > 0:
        console.message("info", "Joined", f"Pod {node.index} of {node.count} joined; pod 0 logs the training.")
    return launch(config.processes_per_node, stop=stop, environ=environ, peers=peers)


def _clear_leftovers(run_directory: Path) -> None:
    """Remove temporary files of a trainer that was killed after it had written the result."""
    from trainyard_trainer.checkpoint.files import Files
    from trainyard_trainer.checkpoint.staging import clear_staging
    from trainyard_trainer.checkpoint.store import CACHE, CHECKPOINTS

    clear_staging(run_directory / CHECKPOINTS, Files())
    if (run_directory / CACHE).is_dir():
        Files().remove_tree(run_directory / CACHE)


def _result(run_directory: Path) -> Termination:
    result = read_result(run_directory)
    if result is None:
        raise NotFoundError(f"{run_directory} holds no result of a finished run.")
    print(json.dumps(result.to_json()))  # noqa: T201 - our output
    return result


def _compare(arguments: argparse.Namespace, stop: StopFlag) -> Termination:
    from trainyard_trainer.bootstrap import prepare_environment

    prepare_environment()
    stop.check()
    code = compare_command.run(arguments, stop.check)
    return Termination(outcome=Outcome.FINISHED, exit_code=code, reason="Compared", message="Compared.")


def _data(arguments: argparse.Namespace, stop: StopFlag) -> Termination:
    data.run(arguments, stop.check)
    return Termination(outcome=Outcome.FINISHED, exit_code=0, reason="Finished", message="Finished.")


def _plan(
    config: RunConfig, definition: TaskDefinition, device_gib: float | None, environ: Mapping[str, str]
) -> Termination:
    """Print the memory plan, for a device of a given size if there is one."""
    from trainyard_trainer.bootstrap import prepare_environment

    prepare_environment()
    device = None if device_gib is None else int(device_gib * 2**30)
    print(definition.plan(config, environ, device))  # noqa: T201 - our output
    return Termination(outcome=Outcome.FINISHED, exit_code=0, reason="Planned", message="Planned.")


def _unexpected(error: Exception) -> Termination:
    """Print the traceback of an unexpected error and return its termination."""
    from trainyard_trainer.exception_mapping import internal_error, traceback_of

    sys.stderr.write(traceback_of(error))
    return termination_of(internal_error(error))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message[0].upper()}{message[1:]}.", self.format_usage().strip())


def _gib(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a size: write the GiB of a device, for example 24")
    return size


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="trainyard-trainer", description="Train models from a run config.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train, or resume an interrupted run")
    train.add_argument("--config", type=Path, required=True, help="the run config, a JSON file")
    export = commands.add_parser("export", help="create missing exports of a finished run, on the CPU")
    export.add_argument("--config", type=Path, required=True, help="the run config with the exports, a JSON file")
    result = commands.add_parser("result", help="print the result of a finished run; exit 66 when there is none")
    result.add_argument("--run-directory", type=Path, required=True, help="the run's directory")
    plan = commands.add_parser("plan", help="predict a run's memory and list what would reduce it; loads no weights")
    plan.add_argument("config", type=Path, help="the run config, a JSON file")
    plan.add_argument(
        "--device-memory", type=_gib, metavar="GIB", help="memory of one device, to choose the recompute mode for"
    )
    compare_command.add_arguments(commands.add_parser("compare", help="compare a model before and after training"))
    data.add_arguments(commands.add_parser("data", help="validate, convert, split and measure datasets"))
    return parser.parse_args(arguments)
