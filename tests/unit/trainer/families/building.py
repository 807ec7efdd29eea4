"""Rebuilding of tokenizers: published pipelines over small vocabularies, trained on text of our own."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.unit.trainer.families.texts import CORPUS, HARD_TEXTS

TEMPLATES = Path(__file__).parent / "templates"
SPACE = "\u2581"
"""SentencePiece's sign for a space."""
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))

Document = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """One model family: the shape of its tokenizer, as published, and its chat template."""

    name: str
    model_type: str
    """That of config.json."""
    tokenizer: Callable[[], Tokenizer]
    config: Mapping[str, Any]
    """tokenizer_config.json without the chat template."""
    examples: Sequence[str] = field(default=())
    """Well-known models with this tokenizer."""

    @cached_property
    def document(self) -> Document:
        """Its tokenizer.json."""
        document: Document = json.loads(self.tokenizer().to_str())
        return document

    @property
    def template(self) -> str | None:
        """Its chat template; None where there is no file of it."""
        path = TEMPLATES / f"{self.name}.jinja"
        return path.read_text() if path.is_file() else None

    def save(self, directory: Path) -> Path:
        """Write tokenizer.json, tokenizer_config.json, the chat template and a config.json with the model type."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "tokenizer.json").write_text(json.dumps(self.document))
        (directory / "tokenizer_config.json").write_text(json.dumps(dict(self.config)))
        (directory / "config.json").write_text(json.dumps({"model_type": self.model_type}))
        if self.template is not None:
            (directory / "chat_template.jinja").write_text(self.template)
        return directory


def special(*texts: str, lstrip: bool = False, rstrip: bool = False) -> list[AddedToken]:
    """Control tokens."""
    return [AddedToken(text, special=True, normalized=False, lstrip=lstrip, rstrip=rstrip) for text in texts]


def plain(*texts: str, normalized: bool = False) -> list[AddedToken]:
    """Added tokens that are ordinary text."""
    return [AddedToken(text, special=False, normalized=normalized) for text in texts]


def byte_level(
    splitter: Any = None,
    *,
    normalizer: Any = None,
    first: Sequence[AddedToken] = (),
    last: Sequence[AddedToken] = (),
    bos: str | None = None,
    ignore_merges: bool = False,
) -> Tokenizer:
    """A byte-level BPE tokenizer.

    Its vocabulary is learnt without a split, so that a text split elsewhere becomes other tokens.

    Args:
        splitter: Its pre-tokenizer; the default is GPT-2's.
        normalizer: Its normalizer.
        first: Added tokens with the first numbers.
        last: Added tokens after the vocabulary.
        bos: The token that its post-processor puts before a text.
        ignore_merges: Whether a word that is a token is not split.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + 500 + len(first),
        special_tokens=list(first),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*CORPUS, *HARD_TEXTS.values()], trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False) if splitter is None else splitter
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_tokens(list(last))
    after = processors.ByteLevel(trim_offsets=False)
    tokenizer.post_processor = after if bos is None else processors.Sequence([after, before_text(tokenizer, bos)])
    return tokenizer


def isolated(*patterns: str, splits_again: bool = False) -> Any:
    """Splits by patterns, then bytes.

    Args:
        patterns: Regular expressions, applied one after the other.
        splits_again: Whether GPT-2's expression is applied last.
    """
    from tokenizers import Regex

    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splits_again)])


def single_digits() -> Any:
    """GPT-2's split with every digit alone."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def sentencepiece(
    *,
    prefix: str,
    first: Sequence[str] = ("<unk>", "<s>", "</s>"),
    last: Sequence[AddedToken] = (),
    pieces: Sequence[str] = (),
    bos: str | None = "<s>",
) -> Tokenizer:
    """A BPE tokenizer converted from a SentencePiece model, with byte fallback.

    Args:
        prefix: How a space gets before a text: `prepend` (normalizer), `first` (Metaspace) or `never`.
        first: Control tokens with the first numbers; bytes follow.
        last: Added tokens after the vocabulary.
        pieces: Further pieces of the vocabulary, made of others.
        bos: The token that its post-processor puts before a text.
    """
    unknown = next(token for token in first if "unk" in token)
    vocab = {token: number for number, token in enumerate([*first, *BYTES, *_pieces(pieces)])}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=_merges(vocab), byte_fallback=True, fuse_unk=True, unk_token=unknown)
    )
    replaced = normalizers.Replace(" ", SPACE)
    strip = [] if prefix == "never" else [decoders.Strip(" ", 1, 0)]
    if prefix == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replaced])
    elif prefix == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = replaced
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    tokenizer.decoder = decoders.Sequence(parts)
    tokenizer.add_tokens([*special(*first), *last])
    if bos is not None:
        tokenizer.post_processor = before_text(tokenizer, bos)
    return tokenizer


def before_text(tokenizer: Tokenizer, token: str) -> Any:
    """The post-processor that puts a token before each text."""
    pair = f"{token}:0 $A:0 {token}:1 $B:1"
    number = tokenizer.token_to_id(token)
    return processors.TemplateProcessing(single=f"{token} $A", pair=pair, special_tokens=[(token, number)])


def _pieces(further: Sequence[str]) -> list[str]:
    """Trained pieces, the most frequent first, as SentencePiece orders them; single characters come last."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False)
    learner.train_from_iterator(CORPUS, trainer)
    ranked = sorted(learner.get_vocab().items(), key=lambda pair: pair[1])
    longer = [piece for piece, _ in ranked if len(piece) > 1]
    spaces = [SPACE * count for count in (2, 4, 8)]
    characters = [piece for piece, _ in ranked if len(piece) == 1]
    return list(dict.fromkeys([*spaces, *longer, *further, *characters]))


def _merges(vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every way to join two pieces to a third, the earlier piece first, as converters write it."""
    merges = []
    for piece in sorted(vocab, key=vocab.__getitem__):
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        known = [split for split in splits if split[0] in vocab and split[1] in vocab]
        merges += sorted(known, key=lambda split: (vocab[split[0]], vocab[split[1]]))
    return merges
