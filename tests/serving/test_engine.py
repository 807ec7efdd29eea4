"""What the proxy and the operator rely on in vLLM, and what they must protect it from."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.serving.engine import BASE, MAX_RANK, Engine, completion, until
from tests.serving.models import ADAPTERS, LARGE_RANK, Files, reference
from tests.unit.trainer.tiny import make_tokenizer

PROMPT = "what is the colour of the red fox"
LONG_PROMPT = " ".join([PROMPT] * 25)
"""Longer than a block of the prefix cache, 128 tokens."""
HANG_SECONDS = 3
"""Within this time an engine that hangs does not answer; one that works answers in a tenth of it."""


# --- names ------------------------------------------------------------------------------------------------------------


def test_models_list_the_base_and_each_adapter_with_path_and_parent(engine: Engine, files: Files) -> None:
    engine.load("red", files.adapters["red"]).raise_for_status()

    entries = {entry["id"]: entry for entry in engine.http.get("/v1/models").json()["data"]}

    assert list(entries) == [BASE, "red"]
    assert (entries[BASE]["root"], entries[BASE]["parent"]) == (str(files.model), None)
    assert (entries["red"]["root"], entries["red"]["parent"]) == (str(files.adapters["red"]), BASE)


@pytest.mark.parametrize("name", ["red", "red@0123456789ab", "a.b_c-d@0123456789ab"])
def test_a_name_with_a_digest_is_accepted_and_echoed(engine: Engine, files: Files, name: str) -> None:
    engine.load(name, files.adapters["red"]).raise_for_status()

    completed = engine.complete(name, PROMPT)
    chat = {"model": name, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 2}
    chatted = engine.http.post("/v1/chat/completions", json=chat)
    streamed = {event["model"] for event in engine.stream(name, PROMPT, 2)}

    assert (completed.status_code, completed.json()["model"]) == (200, name)
    assert (chatted.status_code, chatted.json()["model"]) == (200, name)
    assert streamed == {name}
    assert engine.unload(name).status_code == 200


def test_one_adapter_answers_under_two_names(engine: Engine, files: Files) -> None:
    engine.load("one", files.adapters["red"]).raise_for_status()
    engine.load("two", files.adapters["red"]).raise_for_status()

    assert engine.answer("one", PROMPT) == engine.answer("two", PROMPT) != engine.answer(BASE, PROMPT)


def test_a_loaded_name_is_refused(engine: Engine, files: Files) -> None:
    engine.load("red", files.adapters["red"]).raise_for_status()
    before = engine.answer("red", PROMPT)

    again = engine.load("red", files.adapters["green"])

    assert again.status_code == 400
    assert "already been loaded" in again.json()["error"]["message"]
    assert engine.answer("red", PROMPT) == before


def test_an_unknown_name_is_not_found(engine: Engine) -> None:
    answer = engine.complete("red", PROMPT)

    assert answer.status_code == 404
    assert answer.json()["error"].items() >= {"type": "NotFoundError", "param": "model", "code": 404}.items()


def test_an_unloaded_adapter_is_not_found(engine: Engine, files: Files) -> None:
    engine.load("red", files.adapters["red"]).raise_for_status()

    assert engine.unload("red").status_code == 200
    assert engine.complete("red", PROMPT).status_code == 404
    assert engine.unload("red").status_code == 404
    assert engine.models() == [BASE]


def test_openapi_has_the_load_paths(engine: Engine) -> None:
    """They are on the port of inference, so clients must not reach this port."""
    paths = engine.http.get("/openapi.json").json()["paths"]

    assert {"/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/{adapter_name}"} <= {*paths}


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, *ADAPTERS])
def test_greedy_answers_equal_those_of_transformers_and_peft(engine: Engine, files: Files, name: str | None) -> None:
    adapter = files.adapters[name] if name else None
    if name and adapter:
        engine.load(name, adapter).raise_for_status()

    assert engine.answer(name or BASE, PROMPT, 24) == reference(files.model, adapter, PROMPT, 24)


def test_chats_have_the_tokens_of_the_chat_template(engine: Engine) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    body = {"model": BASE, "messages": messages, "max_tokens": 1, "return_token_ids": True}

    answer = engine.http.post("/v1/chat/completions", json=body).json()

    expected = make_tokenizer().apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert answer["prompt_token_ids"] == expected


def test_more_adapters_than_fit_in_a_batch_answer(engine: Engine, files: Files) -> None:
    """Four fit. The engine reads the others from their paths again, so their files must stay."""
    names = [f"{name}-{copy}" for copy in range(2) for name in ADAPTERS]
    expected = {}
    for name in names:
        engine.load(name, files.adapters[name[:-2]]).raise_for_status()
        expected[name] = engine.answer(name, PROMPT)

    with ThreadPoolExecutor(len(names)) as pool:
        answers = dict(zip(names, pool.map(lambda name: engine.answer(name, PROMPT), names), strict=True))

    assert answers == expected
    assert len({tuple(answer) for answer in answers.values()}) == len(ADAPTERS)


def test_new_version_under_a_new_path_is_not_answered_from_old_prefixes(
    engine: Engine, files: Files, tmp_path: Path
) -> None:
    old, new = tmp_path / "1" / "adapter", tmp_path / "2" / "adapter"
    shutil.copytree(files.adapters["red"], old)
    shutil.copytree(files.adapters["green"], new)
    engine.load("adapter", old).raise_for_status()
    before = engine.answer("adapter", LONG_PROMPT)
    engine.unload("adapter").raise_for_status()
    engine.load("adapter", new).raise_for_status()

    after = engine.answer("adapter", LONG_PROMPT)

    assert after == reference(files.model, files.adapters["green"], LONG_PROMPT, 16) != before


def test_changed_files_under_a_known_path_are_answered_from_old_prefixes(
    engine: Engine, files: Files, tmp_path: Path
) -> None:
    """Why the path of an adapter has its digest."""
    path = tmp_path / "adapter"
    shutil.copytree(files.adapters["red"], path)
    engine.load("adapter", path).raise_for_status()
    engine.answer("adapter", LONG_PROMPT)
    engine.unload("adapter").raise_for_status()
    shutil.copytree(files.adapters["green"], path, dirs_exist_ok=True)
    engine.load("adapter", path).raise_for_status()

    after = engine.answer("adapter", LONG_PROMPT)

    assert after != reference(files.model, files.adapters["green"], LONG_PROMPT, 16)


# --- adapters that do not fit -----------------------------------------------------------------------------------------


def test_an_adapter_of_a_narrower_model_is_accepted(engine: Engine, files: Files) -> None:
    """It answers nonsense. Why the proxy compares shapes before a load."""
    assert engine.load("narrower", files.narrower).status_code == 200
    assert engine.complete("narrower", PROMPT).status_code == 200


def test_refused_adapters_leave_the_engine_as_it_was(engine: Engine, files: Files, tmp_path: Path) -> None:
    before = engine.answer(BASE, PROMPT)
    truncated = tmp_path / "truncated"
    shutil.copytree(files.adapters["red"], truncated)
    os.truncate(truncated / "adapter_model.safetensors", 1000)

    large = engine.load("large", files.large)
    refusals = {
        "missing": engine.load("missing", tmp_path / "missing").status_code,
        "wider": engine.load("wider", files.wider).status_code,
        "truncated": engine.load("truncated", truncated).status_code,
        "base": engine.load(BASE, files.adapters["red"]).status_code,
    }

    assert refusals == {"missing": 404, "wider": 500, "truncated": 500, "base": 400}
    assert large.status_code == 500
    assert f"LoRA rank {LARGE_RANK} is greater than max_lora_rank {MAX_RANK}" in large.json()["error"]["message"]
    assert engine.models() == [BASE]
    assert engine.answer(BASE, PROMPT) == before


# --- changes while requests are answered ------------------------------------------------------------------------------


def test_a_stream_continues_over_the_load_of_another_adapter(engine: Engine, files: Files) -> None:
    undisturbed = tokens_of(engine.stream(BASE, PROMPT, 200))
    stream = engine.stream(BASE, PROMPT, 200)
    first = tokens_of([next(stream)])

    loaded = engine.load("red", files.adapters["red"]).status_code

    assert loaded == 200
    assert first + tokens_of(stream) == undisturbed


def test_a_stream_of_an_unloaded_adapter_completes(engine: Engine, files: Files) -> None:
    engine.load("red", files.adapters["red"]).raise_for_status()
    undisturbed = tokens_of(engine.stream("red", PROMPT, 200))
    stream = engine.stream("red", PROMPT, 200)
    first = tokens_of([next(stream)])

    engine.unload("red").raise_for_status()

    assert first + tokens_of(stream) == undisturbed


def test_a_load_blocks_all_requests_while_it_reads_files(engine: Engine, files: Files, tmp_path: Path) -> None:
    """Why adapters are fetched to a local disk before a load, and why a probe must not count during one."""
    path = tmp_path / "adapter"
    shutil.copytree(files.adapters["red"], path)
    config = path / "adapter_config.json"
    content = config.read_bytes()
    config.unlink()
    os.mkfifo(config)  # a process that reads it waits until it is written
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(engine.load, "red", path)
        writer = until(lambda: opened_with_a_reader(config))
        try:
            with pytest.raises(httpx2.ReadTimeout):
                engine.http.post("/v1/completions", json=completion(BASE, PROMPT, 1), timeout=HANG_SECONDS)
            assert engine.http.get("/health").status_code == 200
        finally:
            os.write(writer, content)
            os.close(writer)

        assert loading.result().status_code == 200
    assert engine.complete(BASE, PROMPT).status_code == 200


def test_health_does_not_show_a_hang(engine: Engine) -> None:
    """Why the liveness probe is a completion."""
    core = engine.core()
    os.kill(core, signal.SIGSTOP)
    try:
        with pytest.raises(httpx2.ReadTimeout):
            engine.http.post("/v1/completions", json=completion(BASE, PROMPT, 1), timeout=HANG_SECONDS)
        others = {path: engine.http.get(path).status_code for path in ("/health", "/v1/models", "/metrics")}
    finally:
        os.kill(core, signal.SIGCONT)

    assert others == {"/health": 200, "/v1/models": 200, "/metrics": 200}
    assert engine.complete(BASE, PROMPT).status_code == 200


# --- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_count_all_requests_under_the_base_model(engine: Engine, files: Files) -> None:
    """Requests of one adapter are not counted: the proxy does that. `lora_requests_info` has Unix times as values."""
    engine.load("red@0123456789ab", files.adapters["red"]).raise_for_status()
    engine.answer("red@0123456789ab", PROMPT)

    series = [line for line in engine.http.get("/metrics").text.splitlines() if line.startswith("vllm:")]

    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert any(line.startswith(f'vllm:{name}{{engine="0",model_name="{BASE}"}}') for line in series)
    with_adapter = {line.partition("{")[0] for line in series if "red@" in line}
    assert with_adapter == {"vllm:lora_requests_info"}


def tokens_of(events: Iterable[dict[str, Any]]) -> list[int]:
    return [token for event in events for choice in event["choices"] for token in choice["token_ids"] or ()]


def opened_with_a_reader(fifo: Path) -> int | None:
    """Open a FIFO to write; None if no process reads it yet."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None
