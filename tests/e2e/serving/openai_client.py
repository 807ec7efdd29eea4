"""Asks an endpoint with the official OpenAI client, and prints what it got as JSON: `openai_client.py URL MODEL`.

It runs in the environment of the serving engine, which has that client.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai


def main(url: str, model: str) -> dict[str, Any]:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120, max_retries=0)
    messages: Any = [{"role": "user", "content": "What is `TabError`?"}]
    settings: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": 8}
    chat = client.chat.completions.create(messages=messages, logprobs=True, top_logprobs=2, **settings)
    stream = client.chat.completions.create(messages=messages, stream=True, **settings)
    chunks = list(stream)
    several = client.completions.create(prompt="The", n=2, seed=7, **{**settings, "temperature": 0.8})
    again = client.completions.create(prompt="The", n=2, seed=7, **{**settings, "temperature": 0.8})
    plain = client.completions.create(prompt="A built-in", **settings)
    stopped = client.completions.create(prompt="A built-in", stop=[plain.choices[0].text[-1]], **settings)
    logprobs = chat.choices[0].logprobs
    try:
        client.chat.completions.create(messages=messages, **{**settings, "model": "no-such-model"})
        wrong = "accepted"
    except openai.NotFoundError as error:
        wrong = str(error.body)
    return {
        "models": [entry.id for entry in client.models.list()],
        "chat": chat.choices[0].message.content,
        "model": chat.model,
        "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
        "streamed_models": sorted({chunk.model for chunk in chunks}),
        "logprobs": len(logprobs.content or []) if logprobs else 0,
        "several": [choice.text for choice in several.choices],
        "again": [choice.text for choice in again.choices],
        "stopped": stopped.choices[0].finish_reason,
        "wrong": wrong,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:])))
