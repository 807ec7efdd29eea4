"""The optimizers: one table for the spec, its rules, the memory plan and the trainer."""

from __future__ import annotations

from typing import Literal, NamedTuple

OptimizerName = Literal["adamw", "adamw8bit", "paged_adamw8bit"]
OPTIMIZER_DESCRIPTION = (
    "adamw; adamw8bit stores its two moments in 8 bits (bitsandbytes), a quarter of their memory; "
    "paged_adamw8bit also moves them to host memory if the GPU's is short."
)


class OptimizerTraits(NamedTuple):
    """Properties of an optimizer for the rules and the memory plan."""

    moments: int
    """State values per trained value."""
    is_8bit: bool = False
    """Whether the state has 8 bits per value; otherwise it has the data type of the trained value."""
    is_paged: bool = False
    """Whether the state may move from the GPU to host memory."""
    is_shardable: bool = False
    """Whether the state can be sharded over processes with method: full."""
    lighter: OptimizerName | None = None
    """The optimizer to recommend if memory is short."""


OPTIMIZERS: dict[OptimizerName, OptimizerTraits] = {
    "adamw": OptimizerTraits(moments=2, is_shardable=True, lighter="adamw8bit"),
    "adamw8bit": OptimizerTraits(moments=2, is_8bit=True, lighter="paged_adamw8bit"),
    "paged_adamw8bit": OptimizerTraits(moments=2, is_8bit=True, is_paged=True),
}
PAGED = tuple(name for name, traits in OPTIMIZERS.items() if traits.is_paged)
NOT_PAGED = tuple(name for name in OPTIMIZERS if name not in PAGED)
SHARDABLE = tuple(name for name, traits in OPTIMIZERS.items() if traits.is_shardable)
