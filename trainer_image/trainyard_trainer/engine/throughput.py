"""What the device's time goes to: waiting for data, and how much of its peak is used. No step waits for this."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainyard_trainer.clock import Clock
from trainyard_trainer.memory.devices import peak_flops


class Throughput:
    """Shares since the last log line.

    Args:
        clock: Measures.
        flops_per_item: Operations the model's mathematics needs for an item, without what is computed twice.
        device: Whose peak counts; unknown ones, and CPUs, have no utilisation.
        devices: How many of them share the items.
    """

    def __init__(self, clock: Clock, flops_per_item: float | None, device: torch.device, *, devices: int = 1) -> None:
        self._clock = clock
        peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        self._utilization_per_rate = flops_per_item / (peak * devices) if flops_per_item and peak else None
        self.begin(items=0)

    def begin(self, items: int) -> None:
        """Measure anew from here.

        Args:
            items: Tokens trained on so far.
        """
        self._since, self._items, self._waited = self._clock.monotonic(), items, 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what fetches data while the steps stand still."""
        started = self._clock.monotonic()
        yield
        self._waited += self._clock.monotonic() - started

    def take(self, items: int) -> dict[str, float]:
        """`dataWait`, the share of the time spent waiting for data, and `mfu`, that of the peak speed that was used.

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
