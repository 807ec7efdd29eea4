"""Report of a benchmark: the machine and one table, as Markdown and JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NONE = "-"


@dataclass(frozen=True)
class Figure:
    """One line of a table.

    Attributes:
        what: The quantity and its unit.
        ours: Measured value.
        bar: Target value.
        peer: Value measured for the peer.
    """

    what: str
    ours: str
    bar: str = NONE
    peer: str = NONE


@dataclass
class Report:
    """The result of one benchmark.

    Attributes:
        title: Heading.
        setup: Name and value of everything that affects the figures.
        figures: The lines of the table.
        notes: Sentences under the table.
    """

    title: str
    setup: dict[str, str]
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, ours: str, bar: str = NONE, peer: str = NONE) -> None:
        """Append a line and print it at once, since a run takes minutes."""
        self.figures.append(Figure(what, ours, bar, peer))
        print(f"  {what}: {ours}", flush=True)

    def markdown(self) -> str:
        """Return the report as Markdown."""
        setup = [f"- {name}: {value}" for name, value in self.setup.items()]
        rows = [f"| {each.what} | {each.ours} | {each.bar} | {each.peer} |" for each in self.figures]
        head = ["| | ours | bar | peer |", "|---|---|---|---|"]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", *setup, "", *head, *rows, "", *notes]).rstrip() + "\n"

    def publish(self, path: Path | None) -> None:
        """Print the report and write it as JSON to an optional path."""
        print(f"\n{self.markdown()}", flush=True)
        if path is not None:
            path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def machine(*packages: str) -> dict[str, str]:
    """Return the machine, the commit and the versions of Python packages."""
    model = _line("/proc/cpuinfo", "model name")
    memory = int(_line("/proc/meminfo", "MemTotal").split()[0]) / 2**20
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "machine": f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, Linux {platform.release()}",
        "load average before (1, 5, 15 min)": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in packages)]
        ),
    }


def file_system(path: Path) -> str:
    """Return the type of the file system of a path."""
    command = ["df", "--output=fstype", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least a `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def p50_p99(seconds: Sequence[float]) -> str:
    """Return median and 99th percentile in milliseconds."""
    if not seconds:
        return "none measured"
    return f"{percentile(seconds, 0.5) * 1000:.0f} / {percentile(seconds, 0.99) * 1000:.0f}"


def _line(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        if line.startswith(name):
            return line.split(":", 1)[1].strip()
    return "unknown"


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    changed = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{git('rev-parse', '--short', 'HEAD') or 'unknown'}{changed}"
