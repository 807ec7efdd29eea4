"""What waiting jobs were told, beside what was true: positions at the moment, estimates when the start came."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.queueing.checks import first_admissions, seconds
from tests.queueing.history import Change, TrainingJob

EXACT = 20
APART = ("ExceedsCapacity", "BackingOff", "QuotaExceeded", "NamespaceCapReached")
"""Reasons of jobs that hold nobody up."""
SHORTEST = 5.0
"""Seconds of waiting below which an error is no share of it."""
FRESH, LATE = 3.0, 10.0
"""Seconds from a place that was worked out to the client that reads it, mostly and at most: news that come late to an
operator that is busy or starts, a write that waits its turn, and a watch; the operator tells places 10 s apart."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A start that was told, and how far it was from what came.

    Attributes:
        basis: What it rested on.
        ahead: Seconds from the telling to the start.
        error: Seconds by which the start came later than told; negative where earlier.
    """

    basis: str
    ahead: float
    error: float


@dataclass
class Positions:
    """How the places that were told compare with the true ones.

    Attributes:
        exact: Told places of at most EXACT that were true at some moment of the last FRESH seconds.
        behind: Told places beyond, of which the range was.
        late: Told places that were true only within the last LATE seconds, or as many as were asked for.
        wrong: Sentences of those that were not.
    """

    exact: int = 0
    behind: int = 0
    late: int = 0
    wrong: list[str] = field(default_factory=list)


def estimates(changes: Sequence[Change]) -> list[Estimate]:
    """Each estimate that was told anew, beside the moment at which the job was let in."""
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
    """Compare each place that was told anew with the true one.

    The operator knows its own admissions at once and the rest a moment later, so a place is true if it lies between
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
    """Who waited when, by pool and UID."""
    admitted, came, last = first_admissions(changes), dict[str, float](), dict[str, TrainingJob]()
    exempt, gone = set[str](), dict[str, float]()
    for change in changes:
        if isinstance(change, TrainingJob):
            came.setdefault(change.uid, change.at)
            last[change.uid] = change
            if change.reason in APART:
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
        found.wrong.append(f"{job.name} was told place {job.position}, and was between {least} and {most}")
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
    """The places that a job may have had, as somebody knew whose news are so old at most."""
    sure = sum(stay.came < job.at - within and stay.left > job.at and not stay.exempt for stay in before)
    most = sum(stay.came < job.at and stay.left > job.at - within for stay in before)
    return 1 + sure, 1 + most


def coarse(place: int) -> int:
    """A place as it is documented to be told."""
    for limit, step in ((EXACT, 1), (100, 10), (500, 50)):
        if place <= limit:
            return math.ceil(place / step) * step
    return math.ceil(place / 100) * 100


def summary(found: Sequence[Estimate]) -> list[tuple[str, str]]:
    """Rows of a report: the error of the estimates, by what they rested on."""
    rows = []
    for basis in sorted({each.basis for each in found}):
        mine = [each for each in found if each.basis == basis]
        errors = sorted(abs(each.error) for each in mine)
        shares = sorted(abs(each.error) / each.ahead for each in mine if each.ahead >= SHORTEST)
        late = sum(each.error > 0 for each in mine)
        text = f"{_at(errors, 0.5):.1f} / {_at(errors, 0.95):.1f} s"
        if shares:
            text += f"; of the wait {100 * _at(shares, 0.5):.0f} / {100 * _at(shares, 0.95):.0f} %"
        rows.append((f"estimate error p50 / p95, basis {basis}", f"{text} ({len(mine)} told, {late} came later)"))
    return rows


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
