"""Whether a job may start now. The seam for a queue: whatever decides is handed to `plan`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from trainyard_operator.trainingjob.model import Observed


class Admission(NamedTuple):
    """The answer for one job.

    Attributes:
        admitted: Whether it may start or go on now.
        reason: CamelCase word.
        message: Sentence for the user.
    """

    admitted: bool
    reason: str
    message: str


Admit = Callable[[Observed], Admission]


def at_once(_observed: Observed) -> Admission:
    """Every job starts when it is seen."""
    return Admission(admitted=True, reason="Admitted", message="The job may start.")
