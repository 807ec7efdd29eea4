"""Build the small model and its instruction set: `python hack/tiny_model --out DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Python puts this folder on the path; the imports need its parent.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tiny_model.build import build  # noqa: E402


def main() -> None:
    """Read the arguments and build."""
    parser = argparse.ArgumentParser(prog="python hack/tiny_model", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; made if missing")
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
