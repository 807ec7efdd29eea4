"""Which requests reach the engine. Pure."""

from __future__ import annotations

INFERENCE = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/tokenize",
        "/detokenize",
    }
)
"""Paths that take a POST with a `model`."""
MODELS = "/v1/models"
READS = frozenset({"/version"})
"""Further paths that take a GET and are passed on as they are."""


def is_inference(method: str, raw_path: str) -> bool:
    """Return whether a request asks a model. The path must be exactly one of the list: nothing is normalised."""
    return method == "POST" and raw_path in INFERENCE


def is_read(method: str, raw_path: str) -> bool:
    """Return whether a request reads something harmless of the engine."""
    return method == "GET" and raw_path in READS
