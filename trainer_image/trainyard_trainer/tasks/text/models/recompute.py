"""Activation checkpointing: decoder layers whose activations the backward pass recomputes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from trainyard_trainer.errors import ConfigurationError
from trainyard_trainer.memory.recompute import Recompute


def recompute_activations(model: Any, recompute: Recompute) -> None:
    """Make layers keep only their input; the gradients stay the same, bit for bit.

    Args:
        model: A model of transformers with its adapter. Add the adapter first: on a model that recomputes, PEFT
            requests the embedding's gradient, an unused part of the first layer's backward pass.
        recompute: Which layers.

    Raises:
        ConfigurationError: The architecture has no layers that support it.
    """
    if recompute.mode == "none":
        return
    layers = _layers(model)
    if not layers:
        raise ConfigurationError(
            f"The activations of this architecture ({model.config.model_type}) cannot be computed again.",
            "Set spec.optimization.recompute: none.",
        )
    run: Callable[..., Any] = HostInputs() if recompute.mode == "offload" else _checkpointed
    chosen = layers if recompute.layers == recompute.of else layers[: recompute.layers]
    for layer in chosen:
        layer.gradient_checkpointing = True
        vars(layer)["_gradient_checkpointing_func"] = run  # as transformers' own setter does, for all layers


def _layers(model: Any) -> list[Any]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _checkpointed(function: Callable[..., Any], *inputs: Any) -> Any:
    return checkpoint(function, *inputs, use_reentrant=False)


class HostInputs:
    """Runs layers whose inputs are kept in host memory until the backward pass.

    On a GPU, a separate stream copies them to pinned memory while the layer computes, and prefetches the input of the
    previous layer while a layer is recomputed, so that no step waits for a copy.
    """

    def __init__(self) -> None:
        self._newest: weakref.ref[_Kept] | None = None
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def __call__(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """Run the layer; its inputs are on the host, or being copied there, when this returns."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
            return _checkpointed(function, *inputs)

    def _pack(self, tensor: Tensor) -> _Kept:
        before = self._newest() if self._newest is not None else None
        kept = _Kept(tensor, self._stream(tensor.device), before)
        self._newest = weakref.ref(kept)
        return kept

    @staticmethod
    def _unpack(kept: _Kept) -> Tensor:
        return kept.take()

    def _stream(self, device: torch.device) -> torch.cuda.Stream | None:
        if device.type == "cuda" and device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._streams.get(device)


class _Kept:
    """One tensor on the host. The autograd graph owns it; it has a weak reference to the one kept before it."""

    def __init__(self, tensor: Tensor, stream: torch.cuda.Stream | None, before: _Kept | None) -> None:
        self._device, self._stream = tensor.device, stream
        self._before = weakref.ref(before) if before is not None else None
        self._fetched: Tensor | None = None
        if stream is None:
            self._host = tensor.detach().cpu().clone()
            return
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            self._host.copy_(tensor.detach(), non_blocking=True)
        tensor.record_stream(stream)  # the allocator does not reuse its memory before it is copied

    def take(self) -> Tensor:
        """Return the tensor on its device and prefetch the one before it, which is needed next."""
        if self._stream is None:
            return self._host
        self.fetch()
        tensor, self._fetched = self._fetched, None
        assert tensor is not None
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        tensor.record_stream(current)
        if self._before is not None and (before := self._before()) is not None:
            before.fetch()
        return tensor

    def fetch(self) -> None:
        """Start the copy to its device."""
        if self._fetched is None and self._stream is not None:
            with torch.cuda.stream(self._stream):
                self._fetched = self._host.to(self._device, non_blocking=True)
