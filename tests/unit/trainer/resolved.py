"""resolved.json in memory."""

from collections.abc import Mapping


class ResolvedMemory:
    """In-memory implementation of `engine.task.Resolved`; `values` are the stored values."""

    def __init__(self, values: Mapping[str, str] = {}) -> None:
        self.values = dict(values)

    def get(self, key: str) -> str | None:
        return self.values.get(key)

    def put(self, key: str, value: str) -> None:
        self.values[key] = value
