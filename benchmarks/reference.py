"""Reference figures of Kubeflow Trainer: measured once, on a machine of the same kind, two runs each."""

from __future__ import annotations

from dataclasses import dataclass

NAME = "Kubeflow Trainer 2.3 + JobSet"


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Latencies of 100 TrainJobs of one node and one GPU: milliseconds p50 / p99, run 1 and run 2.

    Attributes:
        call: The create call.
        child: From the response to the first watch event of the batch Job.
        running: From the response to the pod Running.
        ended: From Job Complete to TrainJob Complete.
        cpu: CPU milliseconds per TrainJob of both controllers.
        ours: Writes per TrainJob of both controllers (+ Events).
        all_writers: Writes per TrainJob by every process but the client.
    """

    call: str
    child: str
    running: str
    ended: str
    cpu: str
    ours: str
    all_writers: str


PACED = Latency(
    call="6 / 14, 7 / 22",
    child="20 / 34, 22 / 50",
    running="75 / 121, 81 / 219",
    ended="10 / 26, 12 / 61",
    cpu="35, 39",
    ours="14.8 (+ 1), 14.6 (+ 1)",
    all_writers="30.7, 30.7",
)
BURST = Latency(
    call="67 / 127, 55 / 134",
    child="2771 / 6483, 3247 / 7729",
    running="2955 / 6567, 3362 / 7897",
    ended="181 / 2138, 821 / 3325",
    cpu="27, 28",
    ours="10.8 (+ 1), 10.5 (+ 1)",
    all_writers="26.9, 26.5",
)
FILLED = "33.3"
RSS = "57 -> 92 and 55 -> 117"
IDLE_CPU = "0.07 and 0.07"
IDLE_WRITES = "0 writes"
RESTART = "0.66, 0.87"
