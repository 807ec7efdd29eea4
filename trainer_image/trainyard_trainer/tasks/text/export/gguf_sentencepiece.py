"""BPE of SentencePiece with byte fallback in a GGUF file: pieces with scores instead of merges."""

from __future__ import annotations

from collections.abc import Sequence

from gguf import GGUFWriter, TokenType

from trainyard_trainer.tasks.text.export.gguf_pipeline import Document, parts_of

SPACE = "\u2581"
"""SentencePiece's sign for a space."""
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))

_PREPENDED: Document = {"type": "Prepend", "prepend": SPACE}
_REPLACED: Document = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_NORMALIZERS = ([_PREPENDED, _REPLACED], [_REPLACED])


def problem(document: Document) -> str | None:
    """Return why llama.cpp would split texts differently; None when it does not."""
    model = document["model"]
    missing = [byte for byte in BYTES if byte not in model["vocab"]]
    if missing:
        return f"it has no token {missing[0]}, and so none for a character that is in no other token"
    odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
    used = [name for name in odd if model.get(name)]
    if used:
        return f"it uses {used[0]}"
    return _pipeline_problem(document) or _merges_problem(model)


def write(writer: GGUFWriter, document: Document, tokens: list[str], types: list[TokenType]) -> None:
    """Write the scores of pieces, and set the types that only SentencePiece has."""
    vocab = document["model"]["vocab"]
    for byte in BYTES:
        types[vocab[byte]] = TokenType.BYTE
    if (unknown := document["model"].get("unk_token")) in vocab:
        types[vocab[unknown]] = TokenType.UNKNOWN
    for number, kind in enumerate(types):
        if kind is TokenType.USER_DEFINED and SPACE in tokens[number] and tokens[number] in vocab:
            types[number] = TokenType.NORMAL  # runs of spaces: BPE joins them from the normalised text
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores(_scores(document["model"], tokens))
    writer.add_add_space_prefix(_PREPENDED in parts_of(document, "normalizer"))


def _pipeline_problem(document: Document) -> str | None:
    normalizers = parts_of(document, "normalizer")
    splits = [part for part in parts_of(document, "pre_tokenizer") if not _splits_nothing(part)]
    if splits and splits[0]["type"] == "Metaspace":
        return "it puts a space before the first piece of a text only, and llama.cpp before every piece"
    if splits:
        return f"it changes text by {splits[0]['type']}"
    if normalizers not in _NORMALIZERS:
        odd = [part for part in normalizers if part not in (_PREPENDED, _REPLACED)]
        return f"it changes text by {odd[0]['type']}" if odd else "it keeps spaces as they are"
    return None


def _splits_nothing(part: Document) -> bool:
    """Whether a pre-tokenizer splits at spaces, of which the normalizer has left none."""
    return bool(part["type"] == "Split" and part["pattern"] == {"String": " "})


def _merges_problem(model: Document) -> str | None:
    """llama.cpp joins any two pieces that make a third; merges must allow the same."""
    vocab, merges = model["vocab"], {tuple(one.split(" ") if isinstance(one, str) else one) for one in model["merges"]}
    for piece in vocab:
        for at in range(1, len(piece)):
            pair = (piece[:at], piece[at:])
            if pair[0] in vocab and pair[1] in vocab and pair not in merges:
                return f"its merges do not join {pair[0]} and {pair[1]} to {piece}, which llama.cpp does"
    return None


def _scores(model: Document, tokens: Sequence[str]) -> list[float]:
    """Return llama.cpp's merge scores, the highest first: each token's negative rank in the list of merges.

    SentencePiece scores the pieces of its BPE models in the same way.
    """
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        ranks.setdefault(left + right, rank)
    return [-float(ranks.get(token, len(model["merges"]))) for token in tokens]
