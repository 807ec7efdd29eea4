"""GPUs whose peak speed is known; the one place to add another."""

from __future__ import annotations

_PEAK_BF16 = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
"""Dense bf16 FLOP/s by the vendor's data sheets, without sparsity; a longer name wins over a shorter one in it."""


def peak_flops(name: str) -> float | None:
    """Dense bf16 operations per second of a GPU by the name its driver gives it; None for an unknown one."""
    known = [part for part in _PEAK_BF16 if part.replace(" ", "") in name.replace(" ", "")]
    return _PEAK_BF16[max(known, key=len)] if known else None
