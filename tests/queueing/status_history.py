"""Published positions and estimates of waiting jobs, compared with the facts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.queueing.checks import first_admissions, seconds
from tests.queueing.history import Change, TrainingJob

EXACT = 20
NONBLOCKING = ("ExceedsCapacity", "BackingOff", "QuotaExceeded", "NamespaceCapReached")
"""Reasons of jobs that block no other job."""
SHORTEST = 5.0
"""Shortest wait for which a relative error is reported, in seconds."""
FRESH, LATE = 3.0, 10.0
"""Age in seconds of a position that a client reads, mostly and at most: a busy or starting operator, the write budget
and the watch add delay; the operator publishes positions 10 s apart."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A published estimate and its error.

    Attributes:
        basis: Its basis.
        ahead: Seconds from its publication to the start.
        error: Seconds by which the start was later than estimated; negative if earlier.
    """

    basis: str
    ahead: float
    error: float


@dataclass
class Positions:
    """Published positions compared with the true ones.

    Attributes:
        exact: Positions of at most EXACT that were true within the last FRESH seconds.
        behind: Positions beyond, of which the range was.
        late: Positions that were true only within the last LATE seconds, or the given tolerance.
        wrong: A sentence for each other position.
    """

    exact: int = 0
    behind: int = 0
    late: int = 0
    wrong: list[str] = field(default_factory=list)


def estimates(changes: Sequence[Change]) -> list[Estimate]:
    """Return each published estimate with its error."""
    admitted, last, found = first_admissions(changes), dict[str, str](), list[Estimate]()
    for change in changes:
        if not isinstance(change, TrainingJob) or not change.estimate or last.get(change.uid) == change.estimate:
            continue
        last[change.uid] = change.estimate
        start = admitted.get(change.uid)
        if start is not None and start[0] > change.at:
            error = start[0] - seconds(change.estimate)
            found.append(Estimate(basis=change.basis, ahead=start[0] - change.at, error=error))
    return found


@dataclass(frozen=True, kw_only=True)
class _Stay:
    """One job in the line: its key, and from when to when it waited."""

    key: tuple[int, str]
    came: float
    left: float
    exempt: bool


def positions(changes: Sequence[Change], late: float = LATE) -> Positions:
    """Compare each published position with the true one.

    The operator observes its own admissions at once and other changes later, so a position is true if it lies between
    the jobs that were certainly ahead and those that may have been.
    """
    lines, found, shown = _lines(changes), Positions(), dict[str, int | None]()
    for change in changes:
        if not isinstance(change, TrainingJob):
            continue
        if change.position is not None and shown.get(change.uid) != change.position:
            line = lines[change.selector]
            _compare(found, change, line[change.uid], line.values(), late)
        shown[change.uid] = change.position
    return found


def _lines(changes: Sequence[Change]) -> dict[str, dict[str, _Stay]]:
    """Return when each job waited, by pool and UID."""
    admitted, came, last = first_admissions(changes), dict[str, float](), dict[str, TrainingJob]()
    exempt, gone = set[str](), dict[str, float]()
    for change in changes:
        if isinstance(change, TrainingJob):
            came.setdefault(change.uid, change.at)
            last[change.uid] = change
            if change.reason in NONBLOCKING:
                exempt.add(change.uid)
            if change.gone or change.ended:
                gone.setdefault(change.uid, change.at)
    lines: dict[str, dict[str, _Stay]] = {}
    for uid, job in last.items():
        left = admitted[uid][0] if uid in admitted else gone.get(uid, float("inf"))
        stay = _Stay(key=(-job.priority, job.stamp), came=came[uid], left=left, exempt=uid in exempt)
        lines.setdefault(job.selector, {})[uid] = stay
    return lines


def _compare(found: Positions, job: TrainingJob, own: _Stay, line: Iterable[_Stay], late: float) -> None:
    if job.position is None:
        return
    before = [stay for stay in line if stay.key < own.key]
    if not _true(job, before, late):
        least, most = _between(job, before, late)
        found.wrong.append(f"{job.name} reported position {job.position}, and was between {least} and {most}")
    elif not _true(job, before, FRESH):
        found.late += 1
    elif job.position <= EXACT:
        found.exact += 1
    else:
        found.behind += 1


def _true(job: TrainingJob, before: Iterable[_Stay], within: float) -> bool:
    least, most = _between(job, before, within)
    return coarse(least) <= (job.position or 0) <= coarse(most)


def _between(job: TrainingJob, before: Iterable[_Stay], within: float) -> tuple[int, int]:
    """Return the range of true positions within the last `within` seconds."""
    least = sum(stay.came < job.at - within and stay.left > job.at and not stay.exempt for stay in before)
    most = sum(stay.came < job.at and stay.left > job.at - within for stay in before)
    return 1 + least, 1 + most


def coarse(position: int) -> int:
    """Round a position as documented."""
    for limit, step in ((EXACT, 1), (100, 10), (500, 50)):
        if position <= limit:
            return math.ceil(position / step) * step
    return math.ceil(position / 100) * 100


def summary(found: Sequence[Estimate]) -> list[tuple[str, str]]:
    """Return report rows with the error of the estimates by basis."""
    rows = []
    for basis in sorted({each.basis for each in found}):
        mine = [each for each in found if each.basis == basis]
        errors = sorted(abs(each.error) for each in mine)
        shares = sorted(abs(each.error) / each.ahead for each in mine if each.ahead >= SHORTEST)
        late = sum(each.error > 0 for each in mine)
        text = f"{_at(errors, 0.5):.1f} / {_at(errors, 0.95):.1f} s"
        if shares:
            text += f"; of the wait {100 * _at(shares, 0.5):.0f} / {100 * _at(shares, 0.95):.0f} %"
        rows.append((f"estimate error p50 / p95, basis {basis}", f"{text} ({len(mine)} estimates, {late} too early)"))
    return rows


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
