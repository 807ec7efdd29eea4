"""Type of the fixture that runs a `data` command."""

from collections.abc import Callable
from typing import Any

Run = Callable[..., tuple[int, Any, str]]
