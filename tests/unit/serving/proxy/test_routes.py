"""Inference passes; the engine's other paths do not, however they are written."""

from __future__ import annotations

import pytest

from trainyard_serving.proxy.routes import INFERENCE, is_inference, is_read


@pytest.mark.parametrize("path", sorted(INFERENCE))
def test_inference_passes(path: str) -> None:
    assert is_inference("POST", path)
    assert not is_inference("GET", path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/adapters",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v1/chat/../load_lora_adapter",
        "/v1/%6coad_lora_adapter",
        "/v1/completions%2f..%2fload_lora_adapter",
        "/sleep",
        "/collective_rpc",
        "/metrics",
        "/openapi.json",
        "/scale_elastic_ep",
        "",
    ],
)
def test_other_paths_do_not_pass(path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        assert not is_inference(method, path)
        assert not is_read(method, path)
