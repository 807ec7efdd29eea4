"""The README written beside the model; its numbers in braces are filled in by the build."""

README = """\
# A small model and instruction set for trying Trainyard without a model hub

Made by `python hack/tiny_model` from text that the Python environment already holds; nothing was downloaded.

- `model/`: a Llama of {parameters} parameters (fp32 safetensors, byte-level BPE tokenizer, chat template), pre-trained
  on {tokens} tokens of {megabytes} MB of documentation strings.
- `train.jsonl`: {train} chats to fine-tune on.
- `heldout.jsonl`: {held_out} held-out chats. No function, question or docstring of theirs is in `train.jsonl` or in
  the pre-training text; what nearly repeats one of them (Jaccard index of words >= 0.7) is left out too.

A chat asks about an object of the standard library, named with its parameters: "What does `heapq.merge(*iterables)`
do?". The answer says what kind of object it is, where it belongs, and the start of its docstring: "A function of
`heapq`: Merge multiple sorted inputs into a single sorted output."

## Recommended TrainingJob settings

```yaml
{settings}
```

{result}

Much of the gain is the form of the answer and the place of the object: the model is far too small to know what an
unseen function does. That it reads the question shows in the loss with shuffled questions, and in the kind and module
it names. `python hack/tiny_model/measure.py DIR` measures all this again with plain torch and PEFT.
"""

SETTINGS = """\
task: llm
method: qlora
"""
RESULT = ""


def render(facts: dict[str, str]) -> str:
    """The README with its facts filled in."""
    return README.format(**facts, settings=SETTINGS.strip(), result=RESULT)
