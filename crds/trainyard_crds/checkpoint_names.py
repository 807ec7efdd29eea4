"""How specs name a checkpoint of a run."""

CHECKPOINT_PATTERN = r"^(last|best|step-[0-9]+-e[0-9]+)$"
CHECKPOINT_FORMS = "last, best or the name of a checkpoint in status.checkpoints, for example step-300-e1"
