"""Warnings about rows that are valid but may not teach what their author meant; each is counted once for a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

FIELD_IGNORED = "FieldIgnored"
CONTENT_LEFT_OUT = "ContentLeftOut"
REASONING_LEFT_OUT = "ReasoningLeftOut"
TOOLS_LEFT_OUT = "ToolsLeftOut"
ONLY_END_LEARNED = "OnlyEndLearned"
NO_END = "NoEndToken"
OTHER_END = "OtherEndToken"
_MOST_FIELDS = 20
"""Fields that are named."""
_SENTENCES = {
    FIELD_IGNORED: "have the field '{detail}', which training does not use.",
    CONTENT_LEFT_OUT: "have text beside tool calls that the chat template leaves out: it is not learned.",
    REASONING_LEFT_OUT: "have reasoning that the chat template leaves out: it is not learned. Many templates keep"
    " only the reasoning after the last question; split a conversation into rows that end with the answer to learn.",
    TOOLS_LEFT_OUT: "have tools that the chat template leaves out: the model does not see what it may call. Use a model"
    " whose template renders tools, or list them in the system turn.",
    ONLY_END_LEARNED: "teach only the end of an answer: its text is empty, or it shares a token with the question, for"
    " example because the question ends with a space.",
    NO_END: "have answers that the chat template ends without a token: the model does not learn to stop. Add"
    " eos_token to answers in chat_template.jinja.",
    OTHER_END: "have answers that end with '{detail}', which is not the tokenizer's eos_token: a server of the"
    " model must stop at '{detail}' too.",
}


def field_ignored(field: str) -> str:
    """The name of the warning about a field."""
    return f"{FIELD_IGNORED}:{field}"


def sentences(counts: Mapping[str, int], rows: int, name: str) -> Iterator[tuple[str, str]]:
    """Kind and sentence of each warning.

    Args:
        counts: Rows by warning.
        rows: Rows of the file.
        name: The file.
    """
    fields = [key for key in counts if key.startswith(FIELD_IGNORED)]
    hidden = fields[_MOST_FIELDS:]
    for key, count in counts.items():
        if key in hidden:
            continue
        kind, _, detail = key.partition(":")
        what = _SENTENCES[kind].format(detail=detail[:80])
        yield kind, f"{count:,} of {rows:,} rows of {name} {what}"
    if hidden:
        yield FIELD_IGNORED, f"The rows of {name} have {len(hidden):,} more fields that training does not use."
