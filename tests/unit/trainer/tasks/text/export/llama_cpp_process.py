"""llama.cpp, run by the interpreter of its own environment.

Reads one JSON line per request and answers with one line. A request names a GGUF file, and either texts and whether to
add special tokens (the answer: the tokens of every text), or tokens (the answer: the logits after the last one). Ends
when its standard input is closed.
"""

import json
import sys
from typing import Any

from cyllama.llama import llama_cpp  # type: ignore[import-not-found]


class Model(llama_cpp.LlamaModel):  # type: ignore[misc]
    """A model whose context finds the size of the vocabulary, which the bindings look for here."""

    @property
    def n_vocab(self) -> int:
        return int(self.get_vocab().n_vocab)


def main() -> None:
    llama_cpp.disable_logging()
    parameters = llama_cpp.LlamaModelParams()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            model = Model(request["file"], parameters)
            answer = logits(model, request["tokens"]) if "tokens" in request else tokenize(model, request)
        except ValueError as error:
            answer = str(error)
        print(json.dumps(answer), flush=True)  # noqa: T201


def tokenize(model: Any, request: dict[str, Any]) -> object:
    vocabulary = model.get_vocab()
    return [vocabulary.tokenize(text, request["special"], True) for text in request["texts"]]


def logits(model: Any, tokens: list[int]) -> object:
    parameters = llama_cpp.LlamaContextParams()
    parameters.n_ctx = 256
    parameters.n_threads = parameters.n_threads_batch = 1
    context = llama_cpp.LlamaContext(model, parameters)
    context.decode(llama_cpp.llama_batch_get_one(tokens))
    return [float(value) for value in context.get_logits()]


if __name__ == "__main__":
    main()
