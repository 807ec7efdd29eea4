"""Exports: one at the end of an interrupted run, others appended afterwards; all load without Trainyard."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.kubectl import pod
from tests.e2e.support import TIMEOUT, Site, condition, training_job

NAME = "exporting"
MERGED = {"format": "merged", "base": "dequantized"}
APPENDED = [{"format": "gguf", "type": "q8_0"}, {"format": "adapter", "destination": "s3://models/out"}]
NOWHERE = {"endpoint": "http://127.0.0.1:9"}
OF_THE_RUN = ("phase", "message", "conditions", "progress", "metrics", "attempts", "completionTime", "checkpoints")
USE = """
import hashlib, json, sys
from pathlib import Path
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer
root = Path(sys.argv[1])
def digest(folder):
    record = json.loads((root / folder / "export.json").read_text())
    found = {path: hashlib.sha256((root / folder / path).read_bytes()).hexdigest() for path in record["files"]}
    lines = "".join(f"{found[path]}  {path}\\n" for path in sorted(found))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
tokenizer = AutoTokenizer.from_pretrained(root / "merged")
model = AutoModelForCausalLM.from_pretrained(root / "merged")
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": "What is a list?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
answer = model.generate(**prompt, max_new_tokens=8, do_sample=False)
print(json.dumps({
    "digests": {folder: digest(folder) for folder in ("merged", "gguf")},
    "tensors": len(GGUFReader(root / "gguf/model-q8_0.gguf").tensors),
    "answered": answer.shape[1] - prompt["input_ids"].shape[1],
}))
"""


@pytest.fixture(scope="module")
def finished(site: Site) -> dict[str, Any]:
    """The status of a QLoRA run that was evicted and resumed, with its merged export."""
    site.kubectl.apply(training_job(NAME, method="qlora", steps=60, exports=[MERGED], retry={"limit": 0}))
    site.evict(site.wait_trained(NAME)["attempts"][-1]["pod"])
    status = site.wait_phase(NAME, "Succeeded")
    first, last = status["attempts"]
    assert (first["exitCode"], first["reason"], last["exitCode"]) == (75, "Evicted", 0)
    return status


@pytest.fixture(scope="module")
def history(site: Site, finished: dict[str, Any]) -> list[dict[str, Any]]:
    """Every status during two appended exports, one of which has an unreachable destination."""
    site.patch(NAME, {"exports": [MERGED, *APPENDED], "s3": NOWHERE})
    seen: list[dict[str, Any]] = []

    def look() -> list[str]:
        status = site.status(NAME)
        if not seen or status != seen[-1]:
            seen.append(status)
        return [one["state"] for one in status["exports"]]

    ended = {"Succeeded", "Failed"}
    site.kubectl.wait("both exports end", look, lambda states: len(states) == 3 and set(states) <= ended, TIMEOUT)
    return seen


def entry(status: dict[str, Any], format_: str) -> dict[str, Any]:
    return next((dict(one) for one in status["exports"] if one["format"] == format_), {})


def test_appended_exports_do_not_change_the_phase(finished: dict[str, Any], history: list[dict[str, Any]]) -> None:
    for status in history:
        assert {key: status.get(key) for key in OF_THE_RUN} == {key: finished.get(key) for key in OF_THE_RUN}
    assert condition(history[-1], "Complete")["status"] == "True"
    states = [entry(status, "gguf").get("state") for status in history]
    assert list(dict.fromkeys(state for state in states if state)) == ["Pending", "Running", "Succeeded"]


def test_export_to_an_unreachable_destination_reports_the_error(history: list[dict[str, Any]]) -> None:
    failed = entry(history[-1], "adapter")
    assert (failed["state"], failed["reason"]) == ("Failed", "SourceUnreachable")
    assert "s3://models/out/README.md cannot be reached" in failed["message"]
    assert f"kubectl delete job {failed['jobName']}" in failed["message"]


def test_exports_load_in_plain_libraries(site: Site, history: list[dict[str, Any]]) -> None:
    status = history[-1]
    claim, _, path = status["runUri"].removeprefix("pvc://").partition("/")
    words = ["python", "-c", USE, f"/run-volume/{path}/exports"]
    site.kubectl.apply(pod("use-exports", site.images["trainer"], words, {claim: "/run-volume"}, read_only=True))
    phase = site.kubectl.wait(
        "the pod that uses the exports ends",
        lambda: site.kubectl.run("get", "pod", "use-exports", "-o", "jsonpath={.status.phase}"),
        lambda seen: seen in ("Succeeded", "Failed"),
        TIMEOUT,
    )
    log = site.log("use-exports")
    assert phase == "Succeeded", log
    used = json.loads(log.strip().splitlines()[-1])
    assert used["digests"] == {folder: entry(status, folder)["digest"] for folder in ("merged", "gguf")}
    assert used["answered"] > 0
    assert used["tensors"] > 0
    assert all(entry(status, folder)["bytes"] > 0 for folder in ("merged", "gguf"))


def test_export_pods_have_no_gpu_and_no_token(site: Site, history: list[dict[str, Any]]) -> None:
    made = [one for one in site.pods(NAME) if one["metadata"]["labels"]["trainyard.dev/role"] == "export"]
    assert len(made) == 2
    for one in made:
        assert one["spec"]["automountServiceAccountToken"] is False
        assert not [volume for volume in one["spec"]["volumes"] if "projected" in volume]
        limits = one["spec"]["containers"][0]["resources"]["limits"]
        assert set(limits) == {"cpu", "memory"}
