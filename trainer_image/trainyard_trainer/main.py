"""Entry point of the trainer.

Imports nothing heavy: as PID 1 the process ignores SIGTERM until it has a handler, and torch takes seconds to import.
"""

from __future__ import annotations

from trainyard_trainer.stop import StopFlag


def main() -> int:
    """Run the command line and return the exit code."""
    stop = StopFlag()
    stop.install()

    from trainyard_trainer.cli import run_command
    from trainyard_trainer.group.launcher import exit_if_failed_member

    return exit_if_failed_member(run_command(stop))
