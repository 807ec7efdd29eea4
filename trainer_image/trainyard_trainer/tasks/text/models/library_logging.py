"""Silences notices and progress bars of libraries, which do not belong in a training log."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Limit transformers, PEFT and bitsandbytes to errors, without progress bars. Call before importing them."""
    for name in ("transformers", "peft", "bitsandbytes", "huggingface_hub", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for module in ("transformers", "peft", "bitsandbytes"):
        warnings.filterwarnings("ignore", module=module)
