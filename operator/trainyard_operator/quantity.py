"""Kubernetes quantities."""

from __future__ import annotations

import math
import re
from fractions import Fraction

_PATTERN = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3})?")
_FACTORS = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000)}
_FACTORS |= {sign: Fraction(1000**power) for power, sign in enumerate(("", *"kMGTPE"))}
_BINARY = {f"{sign}i": Fraction(1024**power) for power, sign in enumerate("KMGTPE", start=1)}
_FACTORS |= _BINARY


def exact(quantity: str) -> Fraction:
    """Parse a quantity into units (bytes, cores).

    Raises:
        ValueError: the text is no quantity.
    """
    match = _PATTERN.fullmatch(quantity)
    if match is None:
        raise ValueError(f"'{quantity}' is not a Kubernetes quantity; write, for example, 500m, 2 or 16Gi")
    number, suffix = Fraction(match[1]), match[2] or ""
    factor = _FACTORS.get(suffix)
    return number * (Fraction(10) ** int(suffix[1:]) if factor is None else factor)


def whole_units(quantity: str) -> int:
    """Parse a quantity into whole units (bytes, cores), rounded up.

    Raises:
        ValueError: the text is no quantity.
    """
    return math.ceil(exact(quantity))


def written(amount: Fraction, *, binary: bool) -> str:
    """Format an amount: bytes with the largest binary suffix that divides them, cores without suffix."""
    if binary:
        for suffix, factor in reversed(_BINARY.items()):
            if amount and amount % factor == 0:
                return f"{amount // factor}{suffix}"
    return str(amount.numerator) if amount.denominator == 1 else f"{float(amount):.3f}".rstrip("0")
