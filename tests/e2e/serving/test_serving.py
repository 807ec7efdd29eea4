"""From a TrainingJob to an endpoint: real vLLM on the node, asked over HTTP."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from demo.kubectl import KubectlError, namespace, pod
from demo.manifest import load
from demo.show import EXAMPLE
from tests.e2e.serving.support import ROOT, Answer, Endpoint, complete, load_on, model_deployment
from tests.e2e.support import TIMEOUT, Site, condition

NAME = "docs"
JOB = "python-docs"
PROMPT = "The function returns"
TOKENS = 24
WAITING = 5
OTHERS = "trainyard-e2e-tenant"


@pytest.fixture(scope="module")
def endpoint(site: Site) -> Endpoint:
    """The example's adapter beside its base model; applied while the job may still run."""
    site.kubectl.apply(load(EXAMPLE))
    site.kubectl.apply(model_deployment(NAME, model={"from": {"trainingJob": JOB}}))
    found = Endpoint(site, NAME)
    found.wait("has a status", lambda status: bool(status.get("conditions")))
    site.wait_phase(JOB, "Succeeded")
    site.kubectl.run("wait", f"md/{NAME}", "--for=condition=Ready", f"--timeout={TIMEOUT}s", timeout=TIMEOUT + 30)
    found.wait_settled()
    return found


def test_status_names_what_is_served(site: Site, endpoint: Endpoint) -> None:
    status, job = endpoint.status(), site.status(JOB)
    best = next(entry for entry in job["checkpoints"] if entry["best"])
    [adapter] = status["adapters"]
    assert (adapter["name"], adapter["digest"]) == (NAME, best["digest"])
    assert (adapter["state"], adapter["readyReplicas"], adapter["checkpoint"]) == ("Loaded", 1, best["name"])
    assert status["model"] == {"source": "pvc://inputs/model", "trainingJob": JOB, "checkpoint": best["name"]}
    assert status["url"] == f"http://{NAME}.{site.kubectl.namespace}.svc:8000"
    assert condition(status, "AdaptersReady")["status"] == condition(status, "RuntimeReady")["status"] == "True"
    table = site.kubectl.run("get", "md", NAME)
    assert table.splitlines()[0].split() == ["NAME", "READY", "REPLICAS", "URL", "ADAPTERS", "VERSION", "AGE"]
    assert "1/1" in table


def test_official_client(endpoint: Endpoint) -> None:
    python = Path(
        subprocess.run([ROOT / "hack/venv", "server"], capture_output=True, text=True, check=True).stdout.strip()
    )
    script = Path(__file__).with_name("openai_client.py")
    command = [str(python / "bin/python"), str(script), endpoint.url(), NAME]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["models"] == ["base", NAME]
    assert found["model"] == NAME
    assert found["streamed_models"] == [NAME]
    assert found["chat"] == found["streamed"] != ""
    assert found["logprobs"] == 8
    assert len(found["several"]) == 2
    assert found["several"] == found["again"]
    assert found["stopped"] == "stop"
    assert "The model `no-such-model` does not exist." in found["wrong"]


def test_greedy_answers_equal_those_of_the_trainer_libraries(endpoint: Endpoint, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    model_path = endpoint.site.inputs / "model"
    [adapter] = endpoint.adapter_files(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    rows = (endpoint.site.inputs / "heldout.jsonl").read_text().splitlines()[:6]
    questions = [json.loads(row)["messages"][0]["content"] for row in rows]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
        )
        for question in questions
    ]

    def expected(model: Any, prompt: list[int]) -> list[int]:
        ids = torch.tensor([prompt])
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, pad_token_id=0
        )
        return [int(token) for token in made[0][len(prompt) :]]

    def served(name: str, prompt: list[int]) -> list[int]:
        answer = complete(endpoint.url(), name, prompt, TOKENS, return_token_ids=True)
        return list(answer.body["choices"][0]["token_ids"])

    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    before = [expected(base, prompt) for prompt in prompts]
    assert [served("base", prompt) for prompt in prompts] == before
    trained = PeftModel.from_pretrained(base, adapter)
    after = [expected(trained, prompt) for prompt in prompts]
    assert [served(NAME, prompt) for prompt in prompts] == after
    assert after != before


def test_adapter_is_added_replaced_and_removed_under_load(site: Site, endpoint: Endpoint) -> None:
    saved = [entry["name"] for entry in site.status(JOB)["checkpoints"]]
    first, second = saved[0], saved[-1]
    assert first != second
    pods = {each["metadata"]["uid"] for each in endpoint.pods()}
    url = endpoint.url()
    with load_on(url, ["base", NAME], PROMPT) as load:
        endpoint.patch({"adapters": [{"name": "other", "from": {"trainingJob": JOB, "checkpoint": first}}]})
        endpoint.wait_settled()
        before = complete(url, "other", PROMPT)
        with load_on(url, ["other"], PROMPT) as others:
            endpoint.patch({"adapters": [{"name": "other", "from": {"trainingJob": JOB, "checkpoint": second}}]})
            status = endpoint.wait_settled()
            after = complete(url, "other", PROMPT)
        endpoint.patch({"adapters": None})
        endpoint.wait_settled()
        gone = complete(url, "other", PROMPT)
    digests = {entry["name"]: entry["digest"] for entry in site.status(JOB)["checkpoints"]}
    assert next(entry["digest"] for entry in status["adapters"] if entry["name"] == "other") == digests[second]
    assert (load.faults, others.faults) == ([], [])
    assert {code for answers in load.answers.values() for code, _ in answers} == {200}
    assert {code for code, _ in others.answers["other"]} == {200}
    assert {text for _, text in others.answers["other"]} <= {before.text, after.text}
    for model in ("base", NAME):
        assert len({text for _, text in load.answers[model]}) == 1
    assert gone.status == 404
    assert gone.body["error"]["message"] == "The model `other` does not exist."
    assert {each["metadata"]["uid"] for each in endpoint.pods()} == pods
    assert not any(entry["restartCount"] for each in endpoint.pods() for entry in each["status"]["containerStatuses"])


REACH = """
import json, ssl, sys, urllib.error, urllib.request
def ask(url, method="GET", headers={}, data=None):
    context = ssl._create_unverified_context() if url.startswith("https") else None
    try:
        request = urllib.request.Request(url, method=method, headers=headers, data=data)
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error.reason).__name__ if isinstance(error, urllib.error.URLError) else type(error).__name__
def bearer(text):
    return {"Authorization": "Bearer " + text}
service, pod, reader = sys.argv[1:]
LOADS = ["/v1/load_lora_adapter", "//v1/load_lora_adapter", "/v1/%6coad_lora_adapter"]
LOADS += ["/v1/unload_lora_adapter", "/adapters"]
load = b'{"lora_name": "x", "lora_path": "/tmp"}'
token = open("/token/token").read()
print(json.dumps({
    "models": ask(service + "/v1/models"),
    "load": [ask(service + path, "POST", {"Content-Type": "application/json"}, load) for path in LOADS],
    "engine": ask(f"http://{pod}:8001/v1/models"),
    "state": [ask(f"http://{pod}:8002/state", method) for method in ("GET", "POST", "PUT", "DELETE")],
    "reader": [ask(reader, headers=headers) for headers in ({}, bearer("x"), bearer(token))],
}))
"""


def test_other_tenants_reach_inference_only(site: Site, endpoint: Endpoint) -> None:
    claim = site.status(JOB)["runUri"].removeprefix("pvc://").partition("/")[0]
    services = site.kubectl.items("services", "-l", "trainyard.dev/role=artifacts")
    reader = next(each for each in services if each["metadata"]["annotations"]["trainyard.dev/claim"] == claim)
    listing = f"https://{reader['spec']['clusterIP']}:8443/v1/artifacts/trainyard"
    arguments = [endpoint.url(), endpoint.pods()[0]["status"]["podIP"], listing]
    site.kubectl.apply(namespace(OTHERS))
    body = pod("tenant", site.images["operator"], ["python", "-c", REACH, *arguments], {})
    token = {"serviceAccountToken": {"audience": "trainyard.dev/artifacts", "path": "token"}}
    body["spec"]["volumes"].append({"name": "token", "projected": {"sources": [token]}})
    body["spec"]["containers"][0]["volumeMounts"].append({"name": "token", "mountPath": "/token"})
    body["metadata"]["namespace"] = OTHERS
    site.kubectl.run("delete", "pod", "tenant", "-n", OTHERS, "--ignore-not-found", "--wait=true")
    site.kubectl.run("create", "-n", OTHERS, "-f", "-", text=json.dumps(body))
    site.kubectl.run(
        "wait", "-n", OTHERS, "pod/tenant", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=300s", timeout=330
    )
    found = json.loads(site.kubectl.run("logs", "-n", OTHERS, "tenant"))
    site.kubectl.run("delete", "namespace", OTHERS, "--wait=false")
    assert found["models"] == 200
    assert set(found["load"]) == {404}
    assert found["engine"] == "ConnectionRefusedError"
    assert found["state"] == [200, 405, 405, 405]
    assert found["reader"] == [401, 401, 403]


KILL = """
import os, pathlib, signal
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    if b"EngineCore" in path.read_bytes():
        os.kill(int(path.parent.name), signal.SIGKILL)
"""


def test_killed_engine_serves_its_adapters_before_it_is_ready_again(endpoint: Endpoint) -> None:
    expected = complete(endpoint.url(), NAME, PROMPT).text
    name = endpoint.pods()[0]["metadata"]["name"]
    with contextlib.suppress(KubectlError):  # the container ends with the engine, and the command with it
        endpoint.kubectl.run("exec", name, "-c", "engine", "--", "python3", "-c", KILL)

    def ready_after_restart() -> bool:
        entries = {entry["name"]: entry for entry in endpoint.pods()[0]["status"]["containerStatuses"]}
        return bool(entries["engine"]["restartCount"] and entries["proxy"]["ready"] and entries["engine"]["ready"])

    endpoint.kubectl.wait("the engine is restarted and ready", ready_after_restart, bool, TIMEOUT)
    answer = complete(endpoint.url(), NAME, PROMPT)
    assert (answer.status, answer.text) == (200, expected)
    assert endpoint.wait_settled()["adapters"][0]["state"] == "Loaded"


def test_replica_killed_under_load_costs_only_its_own_requests(endpoint: Endpoint) -> None:
    endpoint.patch({"replicas": 2})
    endpoint.wait_settled()
    url, name = endpoint.url(), endpoint.pods()[0]["metadata"]["name"]
    before = {each["metadata"]["name"] for each in endpoint.pods()}
    assert len(before) == 2
    with load_on(url, [NAME, NAME, "base"], PROMPT) as load:
        endpoint.kubectl.run("delete", "pod", name, "--wait=false")
        endpoint.wait(
            "a new replica exists", lambda _: {p["metadata"]["name"] for p in endpoint.pods()} - before != set()
        )
        endpoint.wait_settled()
    assert load.faults == []
    assert {code for answers in load.answers.values() for code, _ in answers} == {200}
    assert len({text for _, text in load.answers[NAME]}) == 1


def ask_until_routed(url: str) -> Answer:
    """Ask, again while the node has no route to the gateway's pod yet."""
    while True:
        try:
            return complete(url, NAME, PROMPT, timeout=TIMEOUT)
        except ConnectionRefusedError:
            continue
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise


def test_scaled_to_zero_and_stopped_are_healthy(endpoint: Endpoint) -> None:
    endpoint.kubectl.run("scale", f"md/{NAME}", "--replicas=0")
    status = endpoint.wait("at zero", lambda found: condition(found, "Ready").get("reason") == "ScaledToZero")
    assert condition(status, "ScaledToZero")["status"] == condition(status, "Ready")["status"] == "True"
    endpoint.kubectl.wait("no pod is left", endpoint.pods, lambda pods: pods == [], TIMEOUT)
    endpoint.patch({"scaleToZero": {"maxWaiting": WAITING, "timeoutSeconds": TIMEOUT}})
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{endpoint.kubectl.namespace}/endpointslices"
    name = f"{NAME}-{endpoint.read()['metadata']['uid'][:8]}-activator"
    endpoint.kubectl.wait("the gateway stands in", lambda: endpoint.site.read(f"{slices}/{name}"), bool, TIMEOUT)
    url = endpoint.url()
    with ThreadPoolExecutor(3 * WAITING) as pool:
        answers = list(pool.map(lambda _: ask_until_routed(url), range(3 * WAITING)))
    assert sorted(answer.status for answer in answers) == [200] * WAITING + [503] * 2 * WAITING
    assert len({answer.text for answer in answers if answer.status == 200}) == 1
    endpoint.wait_settled()
    endpoint.kubectl.wait(
        "the gateway leaves", lambda: endpoint.site.read(f"{slices}/{name}"), lambda it: it is None, TIMEOUT
    )
    endpoint.patch({"scaleToZero": None, "stopped": True})
    status = endpoint.wait("stopped", lambda found: condition(found, "Ready").get("reason") == "Stopped")
    assert condition(status, "Stopped")["status"] == "True"
    endpoint.kubectl.wait("no pod is left", endpoint.pods, lambda pods: pods == [], TIMEOUT)
