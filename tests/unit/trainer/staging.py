"""A staging without a store."""

from pathlib import Path

from trainyard_trainer.checkpoint.fencing import claim
from trainyard_trainer.checkpoint.files import Files
from trainyard_trainer.checkpoint.staging import StagingDirectory, open_staging


def make_staging(directory: Path) -> StagingDirectory:
    """Claim a directory as the next owner does."""
    files, owners = Files(), directory / "owner"
    owners.mkdir(parents=True, exist_ok=True)
    ownership = claim(owners, files=files, beyond=0, pod_uid=None, created_at="t")
    return open_staging(directory, files=files, ownership=ownership)
