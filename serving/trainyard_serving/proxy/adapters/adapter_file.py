"""The mounted adapter set; the kubelet replaces it as a whole."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import ValidationError

from trainyard_crds.serving import AdapterSet

logger = logging.getLogger(__name__)


class AdapterFile:
    """Reads the adapter set again when it changed.

    Args:
        path: The mounted file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._known = AdapterSet(version="")

    def read(self) -> AdapterSet:
        """Return the newest set that could be read."""
        try:
            found = self._path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                self._known = AdapterSet.model_validate_json(self._path.read_bytes())
                self._seen = seen
        except (OSError, ValidationError) as error:
            logger.warning("the adapter set cannot be read, the last one stays: %s", error)
        return self._known
