"""The trainer's entry point with the toy task and the fault that TOY_FAULT names.

If TOY_TRAINED names a file, the launcher creates it after it has announced to the other pods that it has trained.

Imports as little as the entry point itself: a launcher needs none of the libraries that are slow to import.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from trainyard_trainer.group.membership import LAUNCHER_ENV
from trainyard_trainer.group.pod_peers import ConnectedPodPeers
from trainyard_trainer.main import main


def is_launcher() -> bool:
    """Return whether this process is the launcher of a group."""
    return LAUNCHER_ENV not in os.environ and json.loads(Path(sys.argv[-1]).read_text()).get("processes", 1) > 1


def touch_when_trained(file: Path) -> None:
    """Create a file when this launcher announces that its processes have finished training."""
    announce_trained = ConnectedPodPeers.announce_trained

    def announce(peers: ConnectedPodPeers) -> None:
        announce_trained(peers)
        file.touch()

    ConnectedPodPeers.announce_trained = announce  # type: ignore[assignment, method-assign] # observe the launcher


def run() -> int:
    """Run the command line and return the exit code."""
    if is_launcher():
        if "TOY_TRAINED" in os.environ:
            touch_when_trained(Path(os.environ["TOY_TRAINED"]))
    else:
        from tests.unit.trainer.toy import play

        play(os.environ.get("TOY_FAULT", ""))
    return main()


def run_fresh() -> int:
    """Replace this process by a fresh interpreter that runs the same command line."""
    os.execv(sys.executable, [sys.executable, __file__, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(run())
