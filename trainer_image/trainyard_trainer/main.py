"""Entry point of the trainer.

Imports nothing heavy: PID 1 ignores SIGTERM until a handler is installed, and importing torch takes seconds.
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
