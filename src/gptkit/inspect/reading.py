"""The text as the model reads it: after the separator, or as a fine-tuned model's sequences. Without torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from gptkit.decoding.engines import open_tokenizer
from gptkit.errors import UsageError
from gptkit.model_files import MARKER_FIELDS, GPTShape
from gptkit.system.reading import read_json_object
from gptkit.system.run_layout import described_in
from gptkit.tasks.encoding import EncodedExamples, Markers, encode_examples
from gptkit.tasks.given import example_of, given_texts
from gptkit.tasks.heads import Head
from gptkit.tasks.task import FORMAT_FIELDS, Task
from gptkit.text.examples import Example
from gptkit.text.tokenizers.any_tokenizer import AnyTokenizer, separator_id
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.shown import pieces_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Fields = tuple[tuple[str, str], ...]  # (name, text)


class Sizes(NamedTuple):
    """What config.json says, before the model is built."""

    n_positions: int
    n_layer: int
    n_head: int


@dataclass(frozen=True, eq=False)
class Asked:
    """What a fine-tuned model is asked: its task and one encoded example of it, whole even where less is shown."""

    task: Task
    encoded: EncodedExamples


@dataclass(frozen=True, eq=False)
class Reading:
    """What a model reads: `sequences` of ids (position,), several for a pair's two orders or for choices.

    `names` are the pieces of ids that the tokenizer does not have. `whole` is the longest sequence's length, uncut.
    """

    sequences: tuple[tuple[int, ...], ...]
    fields: Fields
    tokenizer: AnyTokenizer
    names: Mapping[int, str]
    whole: int
    asked: Asked | None = None

    def piece(self, id: int) -> str:
        """Return the text of a token, a marker's name, or the id of a row of the head that no token has."""
        if id in self.names:
            return self.names[id]
        if self.tokenizer.convert_ids_to_tokens(id) is None:
            return f"<{id}>"
        return pieces_of(self.tokenizer, [id])[0]


def sizes_in(directory: Path) -> Sizes:
    raw = read_json_object(described_in(directory) / "config.json")
    return Sizes(*(_size(raw, name) for name in Sizes._fields))


def _size(raw: Mapping[str, Any], name: str) -> int:
    size = raw.get(name)
    return size if type(size) is int else int(getattr(GPTShape, name))


def read(
    directory: Path, texts: Sequence[str], max_tokens: int, say: Callable[[str], None] = lambda line: None
) -> Reading:
    """Return what the model in a directory reads: one text, or the fields of its format in order, choices last; `-` is
    stdin.

    Raises UsageError for another number of texts, for an empty one, and for one that does not fit into the model.
    """
    head = Head.of(directory)
    if head.format is None:
        return _read_text(directory, texts, max_tokens, say)
    return _read_example(head, texts, max_tokens, say)


def _read_text(directory: Path, texts: Sequence[str], max_tokens: int, say: Callable[[str], None]) -> Reading:
    if len(texts) > 1:
        message = f"a language model reads one text, not {len(texts)}"
        raise UsageError(message, where="TEXT", fix="put the text in quotes")
    texts = given_texts(texts, ["TEXT"], say)
    tokenizer = open_tokenizer(directory)
    (encoded,) = encode_pieces(tokenizer, texts)
    if not len(encoded):
        raise UsageError("the text has no tokens", where="TEXT", fix="pass a text with letters")
    ids = (separator_id(tokenizer), *encoded.tolist())
    _refuse_too_long(len(ids), sizes_in(directory).n_positions)
    return Reading((ids[:max_tokens],), (("text", texts[0]),), tokenizer, {}, len(ids))


def _read_example(head: Head, texts: Sequence[str], max_tokens: int, say: Callable[[str], None]) -> Reading:
    task = head.own_task()
    example = example_of(task, texts, say)
    tokenizer = open_tokenizer(head.directory)
    raw = read_json_object(described_in(head.directory) / "config.json")
    markers = Markers(*(raw[name] for name in MARKER_FIELDS))

    def encoded(limit: int) -> EncodedExamples:
        return encode_examples(cast("PreTrainedTokenizerBase", tokenizer), task, [example], markers, limit)

    whole = encoded(sys.maxsize)
    longest = int(whole.lengths.max())
    _refuse_too_long(longest, sizes_in(head.directory).n_positions)
    shown = encoded(max_tokens) if longest > max_tokens else whole
    ends = zip(shown.offsets[:-1], shown.offsets[1:], strict=True)
    sequences = tuple(tuple(shown.ids[start:end].tolist()) for start, end in ends)
    names = {id: f"<{name}>" for name, id in markers._asdict().items()}
    return Reading(sequences, _named(task, example), tokenizer, names, longest, Asked(task, whole))


def _named(task: Task, example: Example) -> Fields:
    """Return the texts with the names of the format's fields, choices one by one."""
    named = zip(FORMAT_FIELDS[task.format], example.fields, strict=True)
    return tuple((name, text) for name, field in named for text in ([field] if isinstance(field, str) else field))


def _refuse_too_long(length: int, n_positions: int) -> None:
    """Raise UsageError if a sequence, with its separator or markers, has more tokens than the model has positions."""
    if length > n_positions:
        message = f"the text takes {length:,} positions, markers included, but the model has {n_positions:,}"
        raise UsageError(message, where="TEXT", fix="pass a shorter text")
