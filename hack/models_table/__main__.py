"""Train a tiny model of every architecture and write the table: `python hack/models_table --out docs/models.md`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

# Python puts this folder on the path; the imports need its parent.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from models_table import page, runner  # noqa: E402
from models_table.architectures import NAMES  # noqa: E402


def main() -> int:
    """Read the arguments, run every cell, write the page; 1 if a run failed in a way that the page cannot explain."""
    parser = argparse.ArgumentParser(prog="python hack/models_table", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="ARCHITECTURE", help="a few rows, for a trial")
    arguments = parser.parse_args()
    started = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory(prefix="models-table-") as folder:
        for row in runner.run_all(tuple(arguments.only or NAMES), Path(folder)):
            rows.append(row)
            print(f"{time.monotonic() - started:5.0f} s  {row.summary}", flush=True)
    arguments.out.write_text(page.render(rows), encoding="utf-8")
    failed = [row.architecture for row in rows if row.has_failed]
    if failed:
        print(f"failed without a sentence for the user: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
