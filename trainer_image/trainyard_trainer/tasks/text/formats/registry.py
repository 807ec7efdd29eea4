"""The table of row formats."""

from __future__ import annotations

from collections.abc import Mapping

from trainyard_crds.trainingjob_inputs import DatasetFormat
from trainyard_trainer.data.rows import Columns
from trainyard_trainer.tasks.text.formats import alpaca, messages, query_response, sharegpt, text, tokenized
from trainyard_trainer.tasks.text.formats.row_format import RowFormat

# In the order of detection: a row with `messages` and `text` is a conversation beside its rendering; a row with
# `input_ids` holds the tokens of its other fields.
FORMATS: Mapping[DatasetFormat, RowFormat] = {
    one.name: one
    for one in (
        tokenized.FORMAT,
        messages.FORMAT,
        sharegpt.FORMAT,
        alpaca.FORMAT,
        query_response.FORMAT,
        text.FORMAT,
    )
}

COLUMNS = Columns(
    names=frozenset[str]().union(*(one.known for one in FORMATS.values())),
    nested=frozenset[str]().union(*(one.nested for one in FORMATS.values())),
)
"""Every column that some format reads."""
TURN_FIELDS = tuple(one.turns for one in FORMATS.values() if one.turns is not None)
"""Fields that hold a list of turns."""
