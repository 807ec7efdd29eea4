"""resolved.json without a file."""

from collections.abc import Mapping


class ResolvedMemory:
    """Implements `engine.task.Resolved`; `values` are what a later start would find."""

    def __init__(self, values: Mapping[str, str] = {}) -> None:
        self.values = dict(values)

    def get(self, key: str) -> str | None:
        return self.values.get(key)

    def put(self, key: str, value: str) -> None:
        self.values[key] = value
