"""Cache of tokenised files, in the run directory or in a directory that jobs share."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from trainyard_trainer.checkpoint.files import TEMPORARY_PREFIX, Files
from trainyard_trainer.tasks.text.example_file import ExampleFile
from trainyard_trainer.tasks.text.token_rows import Origins, Overlong, TokenizedFile, TokenRows

_VERSION = 2
"""Increment when the same rows and settings produce other tokens."""
_DIGEST_BYTES = 32
_READABLE = 0o644
_LEFTOVER_SECONDS = 24 * 3600
"""Age after which a temporary file belongs to a killed process: no write takes that long."""


@dataclass(frozen=True)
class TokenCache:
    """One file per tokenised dataset file, named by its inputs and verified by its checksum."""

    directory: Path
    keeps: bool = True
    """Whether `store` writes; true in one process of a group."""

    def key(
        self, file: ExampleFile, identity: str, max_length: int, overlong: Overlong, poll: Callable[[], None]
    ) -> str:
        """SHA-256 (hex) over the file's content, the tokenizer's identity and the settings.

        Raises:
            NotFoundError: the file does not exist.
        """
        document = {
            "version": _VERSION,
            "content": file.digest(poll),
            "name": file.name,
            "format": file.format,
            "maxRows": file.max_rows,
            "tokenizer": identity,
            "maxLength": max_length,
            "overlong": overlong,
            **({} if file.skip_limit is None else {"skipLimit": file.skip_limit}),
        }
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def load(self, key: str) -> TokenizedFile | None:
        """The file stored under a key; None if it is missing or damaged."""
        try:
            with safe_open(str(self._path(key)), framework="numpy") as stored:
                facts = json.loads((stored.metadata() or {})["facts"])
                checksum, files = facts.pop("checksum"), tuple(facts.pop("files"))
                parts = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
            rows = TokenRows(parts["tokens"], parts["loss"].astype(np.bool_), parts["starts"])
            content = parts["digests"].tobytes()
            digests = [content[at : at + _DIGEST_BYTES] for at in range(0, len(content), _DIGEST_BYTES)]
            origins = Origins(files, parts["file_of"], parts["numbers"])
            found = TokenizedFile(rows=rows, origins=origins, digests=digests, **facts)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, AttributeError):
            return None
        return found if checksum == _checksum(found, key) else None

    def store(self, key: str, file: TokenizedFile) -> None:
        """Store a tokenised file atomically, unless `keeps` is false.

        Raises:
            OSError: the volume refuses the write.
        """
        if not self.keeps:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        digests = np.frombuffer(b"".join(file.digests), np.uint8)
        parts: dict[str, NDArray[Any]] = {
            "tokens": file.rows.tokens,
            "loss": file.rows.loss.astype(np.uint8),
            "starts": file.rows.starts,
            "digests": digests,
            "file_of": file.origins.file_of,
            "numbers": file.origins.numbers,
        }
        facts = json.dumps({**_facts(file), "checksum": _checksum(file, key)})
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=self.directory)
        os.close(descriptor)
        temporary, files = Path(name), Files()
        _remove_leftovers(self.directory, temporary)
        try:
            save_file(parts, name, metadata={"facts": facts})
            temporary.chmod(_READABLE)
            files.fsync(temporary)
            files.rename(temporary, self._path(key))
        except SafetensorError as error:
            raise OSError(str(error)) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.directory / f"tokens-{key[:16]}.safetensors"


def _remove_leftovers(directory: Path, new: Path) -> None:
    """Remove old temporary files, by the clock of the volume, which may be on another machine."""
    now = new.stat().st_mtime
    for leftover in directory.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(FileNotFoundError):
            if now - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                leftover.unlink()


def _facts(file: TokenizedFile) -> dict[str, object]:
    facts = {name: value for name, value in vars(file).items() if name not in {"rows", "origins", "digests"}}
    return {**facts, "files": file.origins.files}


def _checksum(file: TokenizedFile, key: str) -> str:
    digest = hashlib.sha256(json.dumps([key, file.rows.digest, _facts(file)], sort_keys=True).encode())
    for part in (b"".join(file.digests), file.origins.file_of.tobytes(), file.origins.numbers.tobytes()):
        digest.update(part)
    return digest.hexdigest()
