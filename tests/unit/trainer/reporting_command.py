"""The trainer's command line with the toy task and checks of its reports."""

import os
import threading
from typing import Any

from tests.unit.timeouts import TIMEOUT
from tests.unit.trainer.toy import play
from trainyard_trainer.main import main
from trainyard_trainer.report import gateway_client
from trainyard_trainer.report.gateway_client import GatewayClient
from trainyard_trainer.report.run_log import RunLog


def run() -> int:
    """Run the command line and return the exit code.

    A post from the training thread fails the run. A post that blocks training or, for more than half a second, its end
    would take an hour with a silent gateway. The run ends only after the first post has failed or, with a silent
    gateway, has started.
    """
    post, append, close = gateway_client._post, RunLog.append, GatewayClient.close
    training, posted, logged = threading.current_thread(), threading.Event(), threading.Event()

    def checked_post(*arguments: Any) -> Any:
        assert threading.current_thread() is not training, "the step loop waits for the network"
        posted.set()
        return post(*arguments)

    def recorded_append(log: Any, *, kind: str, **event: Any) -> None:
        append(log, kind=kind, **event)
        if kind == "ProgressNotReported":
            logged.set()

    def delayed_close(client: GatewayClient) -> None:
        assert (logged if os.environ["ANSWERED"] else posted).wait(TIMEOUT)
        close(client)

    for owner, name, replacement in (
        (gateway_client, "_post", checked_post),
        (RunLog, "append", recorded_append),
        (GatewayClient, "close", delayed_close),
        (gateway_client, "_TIMEOUT_SECONDS", 3600.0),
        (gateway_client, "FLUSH_SECONDS", 0.5),
    ):
        setattr(owner, name, replacement)
    play("")
    return main()
