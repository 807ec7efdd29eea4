"""Runs on a claim, as the trainer writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainyard_trainer.checkpoint.manifest import CursorEntry, Manifest, describe_files, digest_of

RUN = "trainyard/tune-1a2b"
CHECKPOINT, EXPORT = f"{RUN}/checkpoints/step-7-e1", f"{RUN}/exports/merged"
ADAPTER = {
    "weights/adapter_config.json": b'{"peft_type": "LORA", "r": 8}',
    "weights/adapter_model.safetensors": b"adapter" * 1000,
    "weights/tokenizer.json": b"{}",
    "state/optimizer.safetensors": b"state" * 1000,
}
MODEL = {"config.json": b"{}", "model.safetensors": b"model" * 1000, "tokenizer.json": b"{}"}


def write(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a directory."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def write_checkpoint(claim: Path, files: Mapping[str, bytes] = ADAPTER, path: str = CHECKPOINT) -> str:
    """Write a checkpoint and return its digest."""
    directory = claim / path
    write(directory, files)
    manifest = Manifest(
        step=7,
        epoch=1.0,
        owner_epoch=1,
        cursor=CursorEntry(epoch=0, index=0),
        data_fingerprint="0" * 64,
        config_hash="0" * 64,
        config={},
        created_at="2026-01-01T00:00:00Z",
        files=describe_files(directory),
    ).to_bytes()
    (directory / "manifest.json").write_bytes(manifest)
    return digest_of(manifest)
