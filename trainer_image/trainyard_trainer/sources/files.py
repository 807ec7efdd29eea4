"""Models and datasets on the file system."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from trainyard_crds.constants import CLAIMS_DIRECTORY
from trainyard_trainer.errors import NotFoundError

SCHEME = "file://"


def display_name(source: str) -> str:
    """The name of a source in messages: pvc:// for a mounted claim, otherwise the source as written."""
    mounted = f"{SCHEME}{CLAIMS_DIRECTORY}/"
    return f"pvc://{source.removeprefix(mounted)}" if source.startswith(mounted) else source


def local_path(source: str) -> Path:
    """The path of a file:// source, as it is written or with its percent escapes decoded (`my%20run`).

    The operator writes paths on claims without escapes, so a path that exists as written is that one.
    """
    written = Path(source.removeprefix(SCHEME))
    return written if written.exists() else Path(unquote(str(written)))


def check_model_directory(directory: Path, name: str) -> None:
    """Refuse a directory without a loadable model.

    Args:
        directory: The directory of the model.
        name: Its name in messages.

    Raises:
        NotFoundError: the directory does not exist, or it lacks config.json or safetensors weights.
    """
    if not directory.is_dir():
        found = "is a file, not a directory" if directory.exists() else "does not exist"
        raise NotFoundError(f"The model {name} {found}.", "Set spec.model.source to a directory with a model.")
    if not (directory / "config.json").is_file():
        raise NotFoundError(
            f"{name} is not a model: it has no config.json.",
            "Set spec.model.source to a directory written by save_pretrained (config.json, tokenizer, safetensors).",
        )
    if any(directory.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in directory.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    if pickled:
        raise NotFoundError(
            f"The model {name} has only pickled weights ({pickled[0]}), which are never loaded: they can run code.",
            "Convert it: load it in a trusted environment and call save_pretrained, which writes safetensors.",
        )
    raise NotFoundError(f"The model {name} has no *.safetensors weights.", "Copy the complete model.")
