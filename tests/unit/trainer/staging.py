"""A staging directory without a checkpoint store."""

from pathlib import Path

from trainyard_trainer.checkpoint.fencing import claim_ownership
from trainyard_trainer.checkpoint.files import Files
from trainyard_trainer.checkpoint.staging import StagingDirectory, open_staging


def make_staging(directory: Path) -> StagingDirectory:
    """Claim a directory as its next owner and open the staging directory."""
    files, owners = Files(), directory / "owner"
    owners.mkdir(parents=True, exist_ok=True)
    ownership = claim_ownership(owners, files=files, newest_epoch=0, pod_uid=None, created_at="t")
    return open_staging(directory, files=files, ownership=ownership)
