"""Serves the model that the demo trained, and asks it over HTTP."""

from __future__ import annotations

import json
import math
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.kubectl import Kubectl, KubectlError, Object
from demo.manifest import load

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "serve-python-docs.yaml"
BASE = "base"
QUESTIONS = 4
"""Held-out questions whose answers are printed."""
TIMEOUT = 1800
"""Seconds until the endpoint is ready; most of it is the start of the engine."""


@dataclass(frozen=True)
class Answers:
    """The answers to one held-out question.

    Attributes:
        question: The question.
        expected: The answer in the data.
        base: The base model's.
        trained: The fine-tuned model's.
    """

    question: str
    expected: str
    base: str
    trained: str


def deploy(kubectl: Kubectl) -> Object:
    """Apply the example and wait until it is ready.

    Raises:
        KubectlError: it did not become ready; the text has its last status.
    """
    wanted = load(EXAMPLE)
    name = wanted["metadata"]["name"]
    kubectl.apply(wanted)
    try:
        kubectl.run("wait", f"md/{name}", "--for=condition=Ready", f"--timeout={TIMEOUT}s", timeout=TIMEOUT + 30)
    except KubectlError as error:
        found = kubectl.get("modeldeployment", name) or {}
        raise KubectlError(f"{error}\n{json.dumps(found.get('status', {}), indent=1)}") from error
    ready = kubectl.get("modeldeployment", name)
    assert ready is not None
    return ready


def address(kubectl: Kubectl, deployment: Object) -> str:
    """Return the URL of an endpoint by the address of its Service: the node itself has no cluster DNS."""
    service = kubectl.get("service", deployment["metadata"]["name"])
    assert service is not None
    return f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"


def ask(url: str, model: str, question: str) -> str:
    """Ask one question; greedy decoding.

    Raises:
        OSError: the endpoint refused or cannot be reached.
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 48,
    }
    answer = _post(f"{url}/v1/chat/completions", body)
    return str(answer["choices"][0]["message"]["content"]).strip()


def ask_both(url: str, trained: str, rows: Path, count: int = QUESTIONS) -> list[Answers]:
    """Ask the base model and the fine-tuned one the first held-out questions."""
    found = [json.loads(line)["messages"] for line in rows.read_text().splitlines()[:count]]
    return [
        Answers(
            question=question["content"],
            expected=expected["content"],
            base=ask(url, BASE, question["content"]),
            trained=ask(url, trained, question["content"]),
        )
        for question, expected in found
    ]


def words_found(answer: str, expected: str) -> float:
    """Return the share of the expected answer's words that an answer has, 0 to 1."""
    wanted = set(expected.lower().split())
    return len(wanted & set(answer.lower().split())) / len(wanted) if wanted else math.nan


def show(answers: list[Answers]) -> bool:
    """Print the answers, and return whether the fine-tuned model is closer to the data than its base model."""
    for each in answers:
        print(f"\n      question: {each.question}")
        print(f"        data:    {each.expected}")
        print(f"        base:    {each.base}")
        print(f"        trained: {each.trained}")
    base = sum(words_found(each.base, each.expected) for each in answers) / len(answers)
    trained = sum(words_found(each.trained, each.expected) for each in answers) / len(answers)
    better = trained > base
    print(
        f"\n      [{'ok' if better else 'NOT SHOWN'}] words of the data's answers: base model {100 * base:.0f} %, "
        f"fine-tuned model {100 * trained:.0f} %"
    )
    return better


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        answer: dict[str, Any] = json.load(response)
    return answer
