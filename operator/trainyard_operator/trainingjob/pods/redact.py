"""Removes what looks like a secret from texts that leave the pod."""

from __future__ import annotations

import re

_HIDDEN = "[redacted]"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), _HIDDEN),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(\.[\w-]*)?"), _HIDDEN),  # JSON web tokens
    (
        re.compile(r"\b(gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|xox[abprs]-[\w-]{8,})"),
        _HIDDEN,
    ),
    (re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"), _HIDDEN),
    (re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"), _HIDDEN),  # user:password of a URL
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {_HIDDEN}"),
    (
        re.compile(
            r"(?i)(\b[\w-]*(?:token|secret|password|passwd|api[_-]?key|access[_-]?key|signature)[\"']?\s*[=:]\s*[\"']?)"
            r"[^\s\"',;&\[]{6,}"
        ),
        rf"\1{_HIDDEN}",
    ),
)


def redact(text: str) -> str:
    """Replace tokens, keys and passwords by `[redacted]`."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def tail(text: str, limit: int) -> str:
    """Return the end of a text, redacted, in whole lines where possible, at most `limit` bytes of UTF-8."""
    clean = redact(text).strip().encode()
    if len(clean) <= limit:
        return clean.decode()
    cut = clean[-limit:]
    first_line = cut.find(b"\n")
    if 0 <= first_line < limit // 2:
        cut = cut[first_line + 1 :]
    return cut.decode(errors="ignore")
