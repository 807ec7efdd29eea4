"""llama.cpp, asked for the tokens of a text and for logits by a GGUF file."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

ROOT = Path(__file__).parents[6]


class LlamaCpp:
    """A running process of llama.cpp."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tokenize(self, file: Path, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the tokens of texts; control tokens inside them are read as such.

        Args:
            file: A GGUF file with a tensor.
            texts: What to tokenise.
            special: Whether the tokens that belong before and after a text are added.
        """
        return cast("list[list[int]]", self._answer({"file": str(file), "texts": list(texts), "special": special}))

    def logits(self, file: Path, tokens: Sequence[int]) -> list[float]:
        """Return the logits of every token of the vocabulary after the given tokens."""
        return cast("list[float]", self._answer({"file": str(file), "tokens": list(tokens)}))

    def _answer(self, request: dict[str, object]) -> list[object]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, list), answer
        return answer


@contextmanager
def running() -> Iterator[LlamaCpp]:
    made = subprocess.run([ROOT / "hack/venv", "llama-cpp"], stdout=subprocess.PIPE, text=True, check=True)
    command = [f"{made.stdout.strip()}/bin/python", "-I", str(Path(__file__).with_name("llama_cpp_process.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield LlamaCpp(process)
