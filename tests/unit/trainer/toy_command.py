"""The trainer's own entry point with the toy task, dying or being stopped where TOY_FAULT says.

Where TOY_TRAINED names a file, the launcher makes it once it has told the other pods that it has trained.

It imports as little as the entry point itself: a launcher, of which each start of a group has one in every pod, needs
none of the libraries that take seconds.
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
    """Whether this process only starts others: `toy_command.py train --config FILE` of a group."""
    return LAUNCHER_ENV not in os.environ and json.loads(Path(sys.argv[-1]).read_text()).get("processes", 1) > 1


def tell_when_trained(file: Path) -> None:
    """Let the launcher of this process make a file when it has told that its processes have done their part."""
    trained = ConnectedPodPeers.trained

    def tell(pods: ConnectedPodPeers) -> None:
        trained(pods)
        file.touch()

    ConnectedPodPeers.trained = tell  # type: ignore[assignment, method-assign] # in the place of a launcher that can be asked


if __name__ == "__main__":
    if is_launcher():
        if "TOY_TRAINED" in os.environ:
            tell_when_trained(Path(os.environ["TOY_TRAINED"]))
    else:
        from tests.unit.trainer.toy import play

        play(os.environ.get("TOY_FAULT", ""))
    sys.exit(main())
