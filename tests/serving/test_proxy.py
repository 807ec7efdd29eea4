"""The proxy beside the real vLLM: adapters without a restart, hangs, ends, and answers equal to the libraries'."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving.engine import BASE, Engine, until
from tests.serving.models import ADAPTERS, Files, reference
from tests.serving.proxy import Proxy, proxy_of
from trainyard_crds.modeldeployment_status import AdapterState

PROMPT = "what is the colour of the red fox"
TOKENS = 16


@pytest.fixture
def proxy(engine: Engine, files: Files, tmp_path: Path) -> Iterator[Proxy]:
    with proxy_of(engine, files.model, tmp_path / "proxy") as found:
        yield found


def test_answers_equal_those_of_transformers_and_peft(proxy: Proxy, files: Files) -> None:
    proxy.serve(files.adapters)
    expected = {BASE: reference(files.model, None, PROMPT, TOKENS)}
    expected |= {name: reference(files.model, files.adapters[name], PROMPT, TOKENS) for name in ADAPTERS}
    assert {name: proxy.answer(name, PROMPT, TOKENS) for name in expected} == expected
    assert len({tuple(answer) for answer in expected.values()}) == len(expected)


def test_replaced_under_load_without_a_failure_or_a_mixed_answer(proxy: Proxy, engine: Engine, files: Files) -> None:
    red, green, blue = (files.adapters[name] for name in ADAPTERS)
    proxy.serve({"bot": red, "other": blue})
    answers: list[tuple[int, ...]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(tuple(proxy.answer("bot", PROMPT, TOKENS)))

    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(ask) for _ in range(3)]
        try:
            for path in (green, red, green):
                proxy.serve({"bot": path, "other": blue})
        finally:
            stop.set()
        for each in work:
            each.result()
    expected = {tuple(reference(files.model, path, PROMPT, TOKENS)) for path in (red, green)}
    assert set(answers) == expected
    until(lambda: len(engine.models()) == 3)
    proxy.serve({"other": blue})
    gone = proxy.complete("bot", PROMPT)
    assert (gone.status_code, gone.json()["error"]["message"]) == (404, "The model `bot` does not exist.")
    until(lambda: len(engine.models()) == 2)


def test_unfit_adapters_have_their_reasons_and_never_reach_the_engine(
    proxy: Proxy, engine: Engine, files: Files, tmp_path: Path
) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    (pickled / "adapter_model.bin").write_bytes(b"x")
    wanted = {"fit": files.adapters["red"], "large": files.large, "narrower": files.narrower, "pickled": pickled}
    state = proxy.serve({**wanted, "absent": tmp_path / "absent"})
    reasons = {one.name: one.reason for one in state.adapters if one.state is AdapterState.FAILED}
    assert reasons == {
        "large": "RankTooLarge",
        "narrower": "AdapterOfAnotherBase",
        "pickled": "PickledAdapter",
        "absent": "SourceNotFound",
    }
    assert len(engine.models()) == 2
    assert proxy.complete("narrower", PROMPT).status_code == 404
    assert proxy.complete("fit", PROMPT).status_code == 200


def test_stopped_engine_fails_the_liveness_probe_and_comes_back(proxy: Proxy, engine: Engine) -> None:
    core = engine.core()
    os.kill(core, signal.SIGSTOP)
    try:
        until(lambda: not proxy.is_live())
        assert not proxy.is_ready()
        assert proxy.state().phase == "Unresponsive"
    finally:
        os.kill(core, signal.SIGCONT)
    until(proxy.is_live)
    until(proxy.is_ready)


def test_engine_that_lost_its_adapters_gets_them_again_before_the_replica_is_ready(
    proxy: Proxy, engine: Engine, files: Files
) -> None:
    proxy.serve(files.adapters)
    before = proxy.answer("red", PROMPT)
    engine.unload_all()
    until(lambda: len(engine.models()) == 1 + len(ADAPTERS))
    until(proxy.is_ready)
    assert proxy.answer("red", PROMPT) == before


def test_sigterm_drains_requests_in_flight_then_lets_the_engine_end(proxy: Proxy, files: Files) -> None:
    proxy.serve(files.adapters)
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(proxy.answer, "red", PROMPT, 400)
        until(lambda: proxy.state().in_flight > 0)
        proxy.process.send_signal(signal.SIGTERM)
        answer = long.result()
    assert len(answer) == 400
    assert proxy.process.wait(60) == 0
    assert (proxy.directory / "drained").exists()


def test_proxy_needs_little_memory(proxy: Proxy, files: Files) -> None:
    proxy.serve(files.adapters)
    for name in ADAPTERS:
        proxy.answer(name, PROMPT)
    status = Path(f"/proc/{proxy.process.pid}/status").read_text()
    kibibytes = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert kibibytes < 100 * 1024
