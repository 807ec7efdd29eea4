"""The engine's metrics under public names: each series once."""

from __future__ import annotations

from trainyard_serving.proxy.metrics import public

TEXT = """\
# HELP vllm:lora_requests_info Running adapters.
# TYPE vllm:lora_requests_info gauge
vllm:lora_requests_info{running_lora_adapters="bot@0123456789ab",max_lora="4"} 5.0
vllm:lora_requests_info{running_lora_adapters="bot@ba9876543210",max_lora="4"} 7.0
vllm:lora_requests_info{running_lora_adapters="bot@ba9876543210,other@0123456789ab",max_lora="4"} 3.0
vllm:num_requests_running{model_name="base"} 1.0
"""


def test_versions_of_an_adapter_are_one_series_with_the_newest_value() -> None:
    lines = public(TEXT).splitlines()
    assert lines == [
        "# HELP vllm:lora_requests_info Running adapters.",
        "# TYPE vllm:lora_requests_info gauge",
        'vllm:lora_requests_info{running_lora_adapters="bot",max_lora="4"} 7.0',
        'vllm:lora_requests_info{running_lora_adapters="bot,other",max_lora="4"} 3.0',
        'vllm:num_requests_running{model_name="base"} 1.0',
    ]
