"""The proxy beside bare vLLM in one run: `python -m benchmarks.serving`. Needs the environment of `hack/venv server`.

Both sides ask the same engine the same questions, in turns, so that noise of the machine meets both alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from tests.serving.engine import completion, running
from tests.serving.models import ADAPTERS, save_files
from tests.serving.proxy import Proxy, proxy_of

PROMPT = "what is the colour of the red fox"
TOKENS = 32
CLIENTS = (1, 8, 16)
ROUNDS, REQUESTS = 5, 48
"""Rounds of both sides at each number of clients, and requests of each side in a round."""
BAR = 0.95


@dataclass(frozen=True)
class Side:
    """Latencies and rates of one side.

    Attributes:
        seconds: Duration of every request.
        rates: Requests per second of every round.
    """

    seconds: list[float]
    rates: list[float]

    def row(self) -> dict[str, float]:
        ordered = sorted(self.seconds)
        return {
            "requests_per_second": round(statistics.median(self.rates), 2),
            "p50_ms": round(1000 * ordered[len(ordered) // 2], 1),
            "p99_ms": round(1000 * ordered[int(0.99 * (len(ordered) - 1))], 1),
        }


def ask_all(url: str, models: list[str], clients: int, number: int) -> tuple[list[float], float]:
    """Ask in parallel, and return the duration of each request and of all."""
    with httpx2.Client(
        base_url=url, timeout=300, trust_env=False, limits=httpx2.Limits(max_connections=clients)
    ) as http:

        def ask(index: int) -> float:
            began = time.perf_counter()
            body = completion(models[index % len(models)], PROMPT, TOKENS, ignore_eos=True)
            http.post("/v1/completions", json=body).raise_for_status()
            return time.perf_counter() - began

        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            seconds = list(pool.map(ask, range(number)))
        return seconds, time.perf_counter() - began


def compare(bare: tuple[str, list[str]], proxied: tuple[str, list[str]], clients: int, rounds: int) -> dict[str, Any]:
    """Ask both sides in turns."""
    sides = {"bare": (bare, Side([], [])), "proxy": (proxied, Side([], []))}
    for number in range(rounds):
        order = list(sides) if number % 2 else list(reversed(sides))
        for name in order:
            (url, models), side = sides[name]
            seconds, whole = ask_all(url, models, clients, REQUESTS)
            side.seconds.extend(seconds)
            side.rates.append(len(seconds) / whole)
    ratios = [two / one for one, two in zip(sides["bare"][1].rates, sides["proxy"][1].rates, strict=True)]
    found: dict[str, Any] = {name: side.row() for name, (_, side) in sides.items()}
    return found | {"clients": clients, "ratio": round(statistics.median(ratios), 3)}


def hot_load(proxy: Proxy, adapters: dict[str, Path]) -> float:
    """Return the milliseconds from a changed adapter set to the first answer of the new adapter."""
    began = time.perf_counter()
    proxy.want(adapters | {"new": adapters["red"]})
    while proxy.complete("new", PROMPT, 1).status_code != 200:
        time.sleep(0.01)
    return 1000 * (time.perf_counter() - began)


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the report there")
    parser.add_argument("--quick", action="store_true", help="a smoke test")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = save_files(root / "models")
        with running(files.model, root / "engine") as engine, proxy_of(engine, files.model, root / "proxy") as proxy:
            proxy.serve(files.adapters)
            internal = {name.partition("@")[0]: name for name in engine.models()}
            bare = (engine.url, ["base", *(internal[name] for name in ADAPTERS)])
            proxied = (proxy.url, ["base", *ADAPTERS])
            ask_all(engine.url, bare[1], 4, 16)
            rows = [compare(bare, proxied, clients, rounds) for clients in CLIENTS]
            report = {
                "setup": {
                    "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, load {os.getloadavg()[0]:.1f}",
                    "engine": "vLLM on the CPU, one thread, a random Llama of 2 layers of 128, 3 adapters of rank 8",
                    "requests": f"{REQUESTS} completions of {TOKENS} tokens in each of {rounds} rounds, sides in turns",
                },
                "throughput": rows,
                "hot_load_ms": round(hot_load(proxy, dict(files.adapters)), 0),
                "proxy_rss_mib": round(resident(proxy.process.pid), 1),
            }
    _print(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


def _print(report: dict[str, Any]) -> None:
    for key, value in report["setup"].items():
        print(f"{key}: {value}")
    print(
        "| clients | bare req/s | proxy req/s | ratio | bare p50/p99 ms | proxy p50/p99 ms |\n|---|---|---|---|---|---|"
    )
    for row in report["throughput"]:
        one, two = row["bare"], row["proxy"]
        print(
            f"| {row['clients']} | {one['requests_per_second']} | {two['requests_per_second']} | {row['ratio']} "
            f"| {one['p50_ms']}/{one['p99_ms']} | {two['p50_ms']}/{two['p99_ms']} |"
        )
    print(f"adapter loaded and answering: {report['hot_load_ms']:.0f} ms")
    print(f"memory of the proxy: {report['proxy_rss_mib']} MiB")
    print(f"bar: ratio at least {BAR}, memory at most 100 MiB")


if __name__ == "__main__":
    main()
