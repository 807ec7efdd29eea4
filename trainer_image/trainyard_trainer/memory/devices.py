"""GPUs with a known peak speed; add another one here."""

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
"""Dense bf16 FLOP/s by the vendor's data sheets, without sparsity; the longest matching name counts."""


def peak_flops(name: str) -> float | None:
    """Return the dense bf16 operations per second of a GPU by its driver's name; None for an unknown one."""
    known = [part for part in _PEAK_BF16 if part.replace(" ", "") in name.replace(" ", "")]
    return _PEAK_BF16[max(known, key=len)] if known else None
