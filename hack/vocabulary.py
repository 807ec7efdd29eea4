"""Refuse words that the glossary replaces: in code, comments, messages, tests and docs.

`python hack/vocabulary.py` prints `file:line: word; write: better word` for each use and exits 1 if there is one.
`--count` prints the number of uses of each word instead, discouraged words included.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = (".py", ".md", ".yaml", ".yml", ".txt", ".toml", ".tpl", ".go", ".json")
NAMES = ("Makefile", "Dockerfile.operator", "Dockerfile.trainer", "run", "venv")
SKIPPED = ("requirements/*", "hack/vocabulary.py", "tests/unit/hack/test_vocabulary.py")
"""Locked package names, and the two files that must name the words."""


@dataclass(frozen=True)
class Rule:
    """A word or phrase, and what to write.

    Attributes:
        phrase: Words in lower case, separated by one blank; matched in prose and as a part of an identifier.
        better: What to write instead.
    """

    phrase: str
    better: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches the phrase in any case, across line breaks, as `snake_case` and as a hump of `camelCase`."""
        first, *others = self.phrase.split()
        rest = "".join(rf"[\s#_]+(?i:{word})" for word in others)
        return re.compile(
            rf"(?:(?<![A-Za-z])(?i:{first})|(?<=[a-z]){first.capitalize()}){rest}(?![a-z])(?!(?<=[A-Z])[A-Z])"
        )


REFUSED = (
    Rule("told", "published, reported, recorded, notified"),
    Rule("hear", "receive"),
    Rule("hears", "receives"),
    Rule("heard", "received"),
    Rule("stranger", "unknown client, third party"),
    Rule("strangers", "unknown clients, third parties"),
    Rule("nobody", "no client, no pod, no one"),
    Rule("somebody", "a user, a client"),
    Rule("anybody", "any user, any client"),
    Rule("whoever", "the user, the client, the process that"),
    Rule("the word", "the message, the termination message"),
    Rule("in words", "as text, a description"),
    Rule("says go", "admits, grants"),
    Rule("let in", "admit, admitted"),
    Rule("lets in", "admits"),
    Rule("patience", "timeout"),
    Rule("yard", "cluster fixture, environment"),
)

DISCOURAGED = (
    Rule("looks at", "reads, checks"),
    Rule("asks", "requests, queries"),
    Rule("asked", "requested, queried"),
    Rule("gives up", "times out, stops retrying"),
    Rule("knows of", "tracks, has"),
    Rule("by itself", "automatically, or name the subject"),
    Rule("of its own", "own, separate"),
)


@dataclass(frozen=True)
class Allowed:
    """A use that stays.

    Attributes:
        path: Glob of files.
        line: Regular expression that the line of the use contains.
        reason: Why no other word will do.
    """

    path: str
    line: str
    reason: str


ALLOWED = (
    Allowed("*", r"early_?stopping|EarlyStopping|earlyStopping|evaluation\.patience", "a field of the API"),
    Allowed("crds/*", r"\b[Pp]atience\b", "a field of the API"),
    Allowed("charts/trainyard/templates/crd-*", r"\bpatience\b", "a field of the API"),
)


@dataclass(frozen=True)
class Use:
    """One use of a refused or discouraged word."""

    path: str
    line: int
    found: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {' '.join(self.found.split())!r}; write: {self.rule.better}"


def uses(path: str, text: str, rules: tuple[Rule, ...] = REFUSED) -> Iterator[Use]:
    """Yield the uses in a file's text and in its path that no entry of `ALLOWED` covers."""
    lines = text.split("\n")
    for rule in rules:
        for match in rule.pattern.finditer(text):
            number = text.count("\n", 0, match.start())
            if not _is_allowed(path, lines[number]):
                yield Use(path, number + 1, match.group(), rule)
        if (in_path := rule.pattern.search(path)) is not None:
            yield Use(path, 0, in_path.group(), rule)


def _is_allowed(path: str, line: str) -> bool:
    return any(fnmatch(path, entry.path) and re.search(entry.line, line) for entry in ALLOWED)


def files(root: Path) -> list[str]:
    """Return the paths of the text files of a checkout: tracked, or new and not ignored."""
    command = ["git", "-C", str(root), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    chosen = (path for path in listed if path.endswith(SUFFIXES) or Path(path).name in NAMES)
    return sorted(p for p in chosen if (root / p).is_file() and not any(fnmatch(p, skipped) for skipped in SKIPPED))


def uses_in(root: Path, rules: tuple[Rule, ...]) -> Iterator[Use]:
    """Yield the uses in all files of a checkout."""
    for path in files(root):
        yield from uses(path, (root / path).read_text(encoding="utf-8"), rules)


def main() -> int:
    """Print the uses, or their counts; 1 when a refused word is used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", action="store_true", help="print the number of uses of each word")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to check (default: this one)")
    arguments = parser.parse_args()
    if arguments.count:
        _print_counts(arguments.root)
        return 0
    found = list(uses_in(arguments.root, REFUSED))
    for use in sorted(found, key=lambda use: (use.path, use.line)):
        print(use)
    return 1 if found else 0


def _print_counts(root: Path) -> None:
    for title, rules in (("refused", REFUSED), ("discouraged", DISCOURAGED)):
        counts = Counter(use.rule.phrase for use in uses_in(root, rules))
        print(f"{title}: {counts.total()}")
        for phrase, count in counts.most_common():
            print(f"  {count:>5}  {phrase}")


if __name__ == "__main__":
    sys.exit(main())
