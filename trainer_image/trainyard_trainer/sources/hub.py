"""Repositories of the hub: commits, safetensors headers, and errors of the client as TrainerError."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx2
from huggingface_hub import HfApi, get_token, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    NotASafetensorsRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)

from trainyard_trainer.errors import (
    ConfigurationError,
    NotFoundError,
    NotPermittedError,
    SourceError,
    StorageError,
    TrainerError,
)
from trainyard_trainer.sources.safetensors_headers import ModelHeaders

if TYPE_CHECKING:  # the memory plan imports this module without torch
    from trainyard_trainer.resolved import Resolved

SCHEME = "hf://"
Select = Callable[[Sequence[str]], Sequence[str]]
"""Chooses which files of a directory are fetched, by their names; may raise TrainerError."""
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
"""Weights, configuration and tokenizer; no pickles, no code."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_BYTE_ORDER_MARK = "\ufeff"
_WRONG_CHARACTER = "has an invalid character at position {}: a space, a control character or non-ASCII"


def is_model_file(name: str) -> bool:
    """Whether a model is loaded from a file, by its path in the repository.

    Folders and files named consolidated* repeat the same weights.
    """
    is_other = "/" in name or name.startswith("consolidated")
    return not is_other and any(fnmatch(name, pattern) for pattern in MODEL_FILES)


def model_files(names: Sequence[str]) -> list[str]:
    """Return the files that a model is loaded from."""
    return [name for name in names if is_model_file(name)]


@dataclass(frozen=True, kw_only=True)
class HubRepository:
    """One repository of the hub; `endpoint` overrides the address of the hub."""

    kind: Literal["model", "dataset"]
    name: str
    revision: str | None = None
    endpoint: str | None = None

    @property
    def field(self) -> str:
        """The field of a TrainingJob that names it."""
        return "spec.model.source" if self.kind == "model" else "spec.dataset"

    def commit(self, resolved: Resolved) -> str:
        """The commit of its revision, resolved once per run, so that a resumed run uses the same.

        Raises:
            TrainerError: see `hub_errors`.
        """
        key = f"commit:{self.kind}:{self.name}@{self.revision or 'main'}"
        if (known := resolved.get(key)) is not None:
            return known
        commit = self.revision if _COMMIT.fullmatch(self.revision or "") else self._newest_commit()
        if commit is None:
            raise SourceError(f"The hub returned no commit for {SCHEME}{self.name}.", "Try again.")
        resolved.put(key, commit)
        return commit

    def _newest_commit(self) -> str | None:
        with hub_errors(self):
            info = HfApi(endpoint=self.endpoint).repo_info(self.name, repo_type=self.kind, revision=self.revision)
        return info.sha


def read_headers(repository: HubRepository) -> ModelHeaders:
    """Fetch config.json and the headers of the weight files, without the weights.

    Raises:
        NotFoundError: the model has no safetensors weights, or their headers are unreadable.
        TrainerError: see `hub_errors`.
    """
    api, name = HfApi(endpoint=repository.endpoint), f"{SCHEME}{repository.name}"
    with hub_errors(repository):
        commit = api.repo_info(repository.name, revision=repository.revision).sha
    with hub_errors(repository, "config.json"):
        config = hf_hub_download(repository.name, "config.json", revision=commit, endpoint=repository.endpoint)
    with hub_errors(repository):
        try:
            found = api.get_safetensors_metadata(repository.name, revision=commit).files_metadata.values()
            tensors = {tensor: tuple(entry.shape) for file in found for tensor, entry in file.tensors.items()}
        except NotASafetensorsRepoError as error:
            raise NotFoundError(
                f"The model {name} has no *.safetensors weights.", "Use a model that is stored as safetensors."
            ) from error
        except (SafetensorsParsingError, ValueError, AttributeError, TypeError) as error:
            raise NotFoundError(
                f"The headers of the *.safetensors files of {name} cannot be read: {_first_line(error)}",
                "Use another revision of the model (model.revision).",
            ) from error
    return ModelHeaders(Path(config).read_bytes(), tensors)


@contextmanager
def hub_errors(repository: HubRepository, file: str | None = None) -> Iterator[None]:
    """Raise errors of the hub's client as TrainerError.

    Raises:
        ConfigurationError: the name is not valid for a repository.
        NotFoundError: the repository, revision or file does not exist.
        NotPermittedError: the hub refuses the credentials.
        SourceError: the hub cannot be reached or failed.
        StorageError: the volume of the cache is full.
    """
    try:
        _check_token()
        yield
    except TrainerError:
        raise
    except HFValidationError as error:
        raise ConfigurationError(
            f"'{repository.name}' is not a valid repository of the hub: {error}", f"Correct {repository.field}."
        ) from error
    except (OSError, httpx2.HTTPError) as error:
        raise _translate(error, repository, file) from error


def _check_token() -> None:
    """Refuse a token that is invalid in an HTTP header, without quoting it.

    Raises:
        NotPermittedError: it has an invalid character.
    """
    token = get_token() or ""
    wrong = next((place for place, character in enumerate(token, 1) if not "!" <= character <= "~"), None)
    if wrong is None:
        return
    what = "begins with a byte-order mark" if token.startswith(_BYTE_ORDER_MARK) else _WRONG_CHARACTER.format(wrong)
    raise NotPermittedError(
        f"The hub token {what}.",
        "Write the token alone, as plain ASCII, into the key of the Secret that spec.model.credentialsSecret names "
        "(outside a pod: HF_TOKEN), for example with kubectl create secret generic --from-literal=token=...",
    )


def _translate(error: Exception, repository: HubRepository, file: str | None) -> TrainerError:
    """The TrainerError for an error of the client; most of these subclass OSError and each other, so order matters."""
    name = f"{SCHEME}{repository.name}" + (f"/{file}" if file else "")
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        return _translate(error.__cause__, repository, file)
    if isinstance(error, LocalEntryNotFoundError | httpx2.TransportError):
        why = _first_line(error.__cause__ or error)
        return SourceError(f"The hub cannot be reached for {name}: {why}.", "Check the pod's network.")
    if _is_refusal(error):
        return NotPermittedError(
            f"The hub does not permit the download of {name}: it is gated or private (or does not exist), or the token"
            " is wrong.",
            _credentials_advice(repository),
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | EntryNotFoundError):
        return _not_found(error, repository, name)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return StorageError(f"The download of {name} filled the disk.", "Give the pod more ephemeral storage.")
    status = f" (HTTP {error.response.status_code})" if isinstance(error, HfHubHTTPError) else ""
    return SourceError(f"The download of {name} failed{status}: {_first_line(error)}", "Try again.")


def _not_found(error: Exception, repository: HubRepository, name: str) -> NotFoundError:
    if isinstance(error, RepositoryNotFoundError):
        advice = f"Check {repository.field}. If it is private: {_credentials_advice(repository)}"
        return NotFoundError(f"The hub has no {repository.kind} {name}.", advice)
    if isinstance(error, RevisionNotFoundError):
        revision = repository.revision or "main"
        return NotFoundError(f"The hub has no revision '{revision}' of {name}.", "Check spec.model.revision.")
    return NotFoundError(f"The hub has no file {name}.", f"Check the path in {repository.field}.")


def _is_refusal(error: Exception) -> bool:
    """Whether the hub refuses the credentials; it answers 401 for unknown repositories too, with an error code."""
    if isinstance(error, GatedRepoError):
        return True
    if not isinstance(error, HfHubHTTPError) or error.response.status_code not in {401, 403}:
        return False
    return error.response.headers.get("X-Error-Code") != "RepoNotFound"


def _credentials_advice(repository: HubRepository) -> str:
    if repository.kind == "model":
        return "Accept its terms on the hub and name a Secret with a token in spec.model.credentialsSecret."
    return "Accept its terms on the hub and give a token that may read it (spec.model.credentialsSecret)."


def _first_line(error: BaseException) -> str:
    """The first line of a message, without URL queries: those of a redirect carry a signature."""
    lines = str(error).strip().splitlines()
    return re.sub(r"\?[^\s'\"]+", "", lines[0])[:300] if lines else type(error).__name__
