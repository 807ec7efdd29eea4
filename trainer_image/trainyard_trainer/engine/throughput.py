"""Shares of the device's time and peak speed; measuring does not block a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainyard_trainer.clock import Clock
from trainyard_trainer.memory.devices import peak_flops


class Throughput:
    """Shares since the last log line.

    Args:
        clock: The time.
        flops_per_item: Operations that the model needs for an item, recomputation not counted.
        device: Its peak counts; unknown GPUs and CPUs have no utilisation.
        devices: Devices that share the items.
    """

    def __init__(self, clock: Clock, flops_per_item: float | None, device: torch.device, *, devices: int = 1) -> None:
        self._clock = clock
        peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self._utilization_per_rate = flops_per_item / (peak * devices) if flops_per_item and peak else None
        self.begin(items=0)

    def begin(self, items: int) -> None:
        """Start a new measurement.

        Args:
            items: Tokens trained on so far.
        """
        self._since, self._items, self._waited = self._clock.monotonic(), items, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the time in the context as waiting for data."""
        started = self._clock.monotonic()
        yield
        self._waited += self._clock.monotonic() - started

    def take(self, items: int) -> dict[str, float]:
        """Return `dataWait`, the share of the time spent waiting for data, and `mfu`, the share of the peak speed used.

        Args:
            items: Tokens trained on so far.
        """
        seconds, done, waited = self._clock.monotonic() - self._since, items - self._items, self._waited
        self.begin(items)
        if seconds <= 0:
            return {}
        shares = {"dataWait": min(1.0, waited / seconds)}
        if self._utilization_per_rate is not None:
            shares["mfu"] = done / seconds * self._utilization_per_rate
        return shares
