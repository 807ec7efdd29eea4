"""checkpoints/index.json: the last and the best checkpoint, for users and scripts.

The index is rebuilt from the manifests; the trainer never reads it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from trainyard_trainer.checkpoint.manifest import Checkpoint
from trainyard_trainer.checkpoint.retention import best_of
from trainyard_trainer.objective import Objective


def index_document(checkpoints: Sequence[Checkpoint], objective: Objective) -> bytes:
    """Return the content of the index of the valid checkpoints."""
    ordered = sorted(checkpoints, key=lambda one: one.order)
    best = best_of(ordered, objective)
    document = {
        "last": ordered[-1].name if ordered else None,
        "best": best.name if best else None,
        "checkpoints": [
            {"name": one.name, "step": one.manifest.step, "metrics": one.manifest.metrics, "digest": one.digest}
            for one in ordered
        ],
    }
    return json.dumps(document, indent=1).encode()
