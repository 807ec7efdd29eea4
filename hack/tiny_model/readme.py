"""The README of the model, a template for the numbers of the build."""

README = """\
# A small model and instruction set for trying Trainyard without a model hub

Built by `python hack/tiny_model` from text in the Python environment, without downloads.

- `model/`: a Llama of {parameters} parameters (fp32 safetensors, byte-level BPE tokenizer, chat template), pre-trained
  on {tokens} tokens of {megabytes} MB of documentation strings.
- `train.jsonl`: {train} chats to fine-tune on.
- `heldout.jsonl`: {held_out} held-out chats. No function, question or docstring of theirs is in `train.jsonl` or in
  the pre-training text; near duplicates (Jaccard index of words >= 0.7) are excluded too.

A chat asks about an object of the standard library, named with its parameters: "What does `heapq.merge(*iterables)`
do?". The answer states its kind, its parent and the start of its docstring: "A function of
`heapq`: Merge multiple sorted inputs into a single sorted output."

## Recommended TrainingJob settings

```yaml
{settings}
```

{result}

Most of the gain is the form of the answer and the parent of the object, which the question contains. On the docstring
alone the loss falls by 10 % (4.23 to 3.81), and shuffled questions raise it by 1.3 %: a model of this size cannot
predict what an unseen function does. `python hack/tiny_model/measure.py DIR` repeats the measurement with plain torch
and PEFT.
"""

SETTINGS = """\
task: llm
method: qlora
optimization:
  maxSteps: 280
  batchSize: 4
  gradientAccumulation: 1
  learningRate: 4e-3
  scheduler: cosine
  warmupRatio: 0.05
  precision: fp32
adapter: {rank: 32, alpha: 64, targets: [all-linear]}
llm: {maxLength: 256, packing: true, trainOn: completions}
"""
RESULT = """\
On one CPU thread, training took 70 s of CPU time and lowered the held-out loss of the answers by 43 % (from 4.58 to
2.59 nats per token, with two seeds; learning rates from 3e-3 to 5e-3 are equally good, 1e-2 is too high). With the
questions shuffled among the held-out rows, the loss of the same answers is 16 % higher. The NF4 base model has a loss
of 4.58, against 4.56 in fp32."""


def render(facts: dict[str, str]) -> str:
    """Render the README."""
    return README.format(**facts, settings=SETTINGS.strip(), result=RESULT)
