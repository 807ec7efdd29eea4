"""Entry point of `python3 hack/cluster`."""

import sys
from pathlib import Path

if __package__ in (None, ""):
    # Run as a folder, Python puts the folder itself on the path; the package is one level up.
    hack = Path(__file__).resolve().parent.parent
    sys.path[:1] = [str(hack), str(hack.parent / "kube")]

from cluster.cli import main

sys.exit(main(sys.argv[1:]))
