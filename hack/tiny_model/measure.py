"""Measure QLoRA fine-tuning of the small model: `python hack/tiny_model/measure.py DIR`.

A plain torch and PEFT loop over packed chats, apart from the trainer, so that the recommended settings rest on a second
implementation. Prints the held-out loss of answers before and after, and with the questions shuffled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

IGNORED = -100
Chat = list[dict[str, str]]


@dataclass(frozen=True)
class Encoded:
    """Token ids of one chat and its labels, which are `IGNORED` except on the answer."""

    ids: list[int]
    labels: list[int]


def main() -> None:
    """Fine-tune, measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what hack/tiny_model wrote")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--steps", type=int, default=280)
    parser.add_argument("--batch-size", type=int, default=4, help="packed sequences of one step")
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a packed sequence")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(arguments)))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Losses (mean over answer tokens, nats), seconds and a digest of the trained adapter."""
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder / "model")
    train, held_out = (_read(arguments.folder / name) for name in ("train.jsonl", "heldout.jsonl"))
    right = [_encode(tokenizer, chat) for chat in held_out]
    wrong = [_encode(tokenizer, chat) for chat in shuffled(held_out)]
    sets = {"right": right, "shuffled": wrong}
    sets |= {f"{name}_docstring": [_docstring_only(tokenizer, row) for row in rows] for name, rows in sets.items()}
    torch.manual_seed(arguments.seed)
    model = _load(arguments.folder / "model", arguments.rank)
    base = {name: _loss_of(model, rows) for name, rows in sets.items()}
    started = time.monotonic()
    last = _fine_tune(model, [_encode(tokenizer, chat) for chat in train], arguments)
    seconds = time.monotonic() - started
    tuned = {name: _loss_of(model, rows) for name, rows in sets.items()}
    return {
        "base": base,
        "tuned": tuned,
        "reduction": 1 - tuned["right"] / base["right"],
        "shuffled_over_right": tuned["shuffled"] / tuned["right"],
        "last_train_loss": last,
        "seconds": seconds,
        "adapter_sha256": _digest(model),
        "samples": [_answer(model, tokenizer, chat) for chat in held_out[::60]],
    }


def shuffled(chats: list[Chat], seed: int = 5) -> list[Chat]:
    """The same answers, each with the question of another chat."""
    order = list(range(len(chats)))
    random.Random(seed).shuffle(order)
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    return [[*chats[following[i]][:-1], chat[-1]] for i, chat in enumerate(chats)]


def _read(path: Path) -> list[Chat]:
    return [json.loads(line)["messages"] for line in path.read_text().splitlines()]


def _load(folder: Path, rank: int) -> Any:
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=nf4, dtype=torch.float32)
    for module in model.modules():  # on some CPUs, evaluation otherwise repacks the weights and changes the logits
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    )


def _encode(tokenizer: Any, chat: Chat) -> Encoded:
    encoded = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    return Encoded(encoded["input_ids"], [token if answer else IGNORED for token, answer in pairs])


def _docstring_only(tokenizer: Any, row: Encoded) -> Encoded:
    """The row with labels on the docstring only, without kind and parent of the object."""
    labels, said = list(row.labels), ""
    for position, token in enumerate(row.labels):
        if token != IGNORED and ": " not in said and not said.endswith(":"):
            said += tokenizer.decode([token])
            labels[position] = IGNORED
    return Encoded(row.ids, labels)


def _fine_tune(model: Any, rows: list[Encoded], arguments: argparse.Namespace) -> float:
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=arguments.learning_rate, weight_decay=0.0)
    batches = _batches(rows, arguments)
    model.train()
    last = math.nan
    for step in range(arguments.steps):
        warm = min(1.0, (step + 1) / max(1, math.ceil(0.05 * arguments.steps)))
        for group in optimizer.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * step / arguments.steps))
            group["lr"] = arguments.learning_rate * warm * cosine
        total, count = _answer_loss(model, next(batches))
        torch.autograd.backward(total / count)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        last = total.item() / count
    return last


def _batches(rows: list[Encoded], arguments: argparse.Namespace) -> Iterator[list[list[Encoded]]]:
    rng = random.Random(arguments.seed)
    packs: list[list[Encoded]] = []
    while True:
        for row in rng.sample(rows, len(rows)):
            if not packs or sum(len(r.ids) for r in packs[-1]) + len(row.ids) > arguments.max_length:
                if len(packs) == arguments.batch_size:
                    yield packs
                    packs = []
                packs.append([])
            packs[-1].append(row)


def _answer_loss(model: Any, packs: list[list[Encoded]]) -> tuple[torch.Tensor, int]:
    """Sum of the loss over answer tokens, and their number."""
    width = max(sum(len(row.ids) for row in pack) for pack in packs)
    ids, labels, positions = (torch.full((len(packs), width), fill) for fill in (0, IGNORED, 0))
    for line, pack in enumerate(packs):
        start = 0
        for row in pack:
            end = start + len(row.ids)
            ids[line, start:end] = torch.tensor(row.ids)
            labels[line, start + 1 : end] = torch.tensor(row.labels[1:])
            positions[line, start:end] = torch.arange(len(row.ids))
            start = end
    # Restarting positions isolate packed chats only without a cache and a mask.
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:]
    wanted = targets != IGNORED
    return torch.nn.functional.cross_entropy(logits[wanted], targets[wanted], reduction="sum"), int(wanted.sum())


@torch.no_grad()
def _loss_of(model: Any, rows: list[Encoded]) -> float:
    model.eval()
    sums = [_answer_loss(model, [[row] for row in rows[i : i + 16]]) for i in range(0, len(rows), 16)]
    return sum(total.item() for total, _ in sums) / sum(count for _, count in sums)


@torch.no_grad()
def _answer(model: Any, tokenizer: Any, chat: Chat) -> dict[str, str]:
    ids = tokenizer.apply_chat_template(chat[:-1], return_dict=True, add_generation_prompt=True, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=50, do_sample=False)
    text = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return {"question": chat[0]["content"], "answer": text, "documentation": chat[-1]["content"]}


def _digest(model: Any) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if weight.requires_grad:
            digest.update(name.encode() + weight.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    main()
