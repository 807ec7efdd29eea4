"""`python -m tests.campaign`: kill, stop and resume trainers at many instants and check the results.

A failure prints the seed and the trial; `--seed` repeats the choices, but not the exact times of timed signals."""

import argparse
import secrets
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.campaign.plan import CampaignError, run_campaign


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="default: a random one")
    parser.add_argument("--count", type=int, default=400, help="trials (default 400)")
    parser.add_argument("--seconds", type=float, default=900, help="stop after so many seconds (default 900)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"campaign-trainer: seed {arguments.seed}, {arguments.count} trials, at most {arguments.seconds:.0f} s",
        flush=True,
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="campaign-") as directory:
        try:
            campaign = run_campaign(
                Path(directory), seed=arguments.seed, count=arguments.count, seconds=arguments.seconds
            )
        except CampaignError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            return 1
    instants = ", ".join(f"{n} of the {thread}" for thread, n in campaign.reference("lora").instants.items())
    print(f"{campaign.trials:5}  trials; instants of an uninterrupted run: {instants}")
    for trial, number in sorted(campaign.tally.items()):
        print(f"{number:5}  {trial}")
    for article, lost in (("no", campaign.steps_lost), ("a", campaign.steps_lost_in_flight)):
        counts = ", ".join(f"{n} x {steps}" for steps, n in sorted(lost.items())) or "none"
        print(f"steps lost by a kill with {article} checkpoint in flight: {counts}")
    print(f"all runs ended with the bits of the uninterrupted one; {time.monotonic() - started:.0f} s")
    return 0


sys.exit(main())
