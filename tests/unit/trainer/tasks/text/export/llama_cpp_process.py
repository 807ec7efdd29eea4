"""llama.cpp's tokenizer, run by the interpreter of its own environment.

Reads one JSON line per request: a GGUF file, texts, and whether to add special tokens. Answers with one line: the
tokens of every text. Ends when its standard input is closed.
"""

import json
import sys

from cyllama.llama import llama_cpp  # type: ignore[import-not-found]


def main() -> None:
    llama_cpp.disable_logging()
    parameters = llama_cpp.LlamaModelParams()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            model = llama_cpp.LlamaModel(request["file"], parameters)
            vocabulary = model.get_vocab()
            answer: object = [vocabulary.tokenize(text, request["special"], True) for text in request["texts"]]
        except ValueError as error:
            answer = str(error)
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
