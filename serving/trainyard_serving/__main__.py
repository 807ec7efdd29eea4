"""`python -m trainyard_serving proxy|fetch|fetch-adapter|artifacts`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run one of the programs."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "proxy":
        from trainyard_serving.proxy.main import main as run_proxy

        return run_proxy()
    if command in ("fetch", "fetch-adapter"):
        from trainyard_serving.fetch.main import main as run_fetch

        return run_fetch(sys.argv[1:])
    if command == "artifacts":
        from trainyard_serving.artifacts.main import main as run_artifacts

        return run_artifacts()
    sys.stderr.write(f"'{command}' is no program of serving; use proxy, fetch, fetch-adapter or artifacts\n")
    return 64


if __name__ == "__main__":
    sys.exit(main())
