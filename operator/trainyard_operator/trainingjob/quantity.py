"""Kubernetes quantities."""

from __future__ import annotations

import math
import re

_PATTERN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?")
_FACTORS = {"m": 1e-3, "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_FACTORS |= {f"{sign}i": 1024**power for power, sign in enumerate("KMGTP", start=1)}


def whole_units(quantity: str) -> int:
    """A quantity in whole units (bytes, cores), rounded up.

    Raises:
        ValueError: the text is no quantity.
    """
    match = _PATTERN.fullmatch(quantity)
    if match is None:
        raise ValueError(f"'{quantity}' is no Kubernetes quantity; write for example 500m, 2 or 16Gi")
    return math.ceil(float(match[1]) * _FACTORS[match[2] or ""])
