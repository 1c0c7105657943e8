"""`gptkit tokenizer`: train a tokenizer, or compare two."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.options import REQUIRED, OutputOptions, option
from gptkit.system.files import require_free, translate_os_errors
from gptkit.text.tokenizers.any_tokenizer import TRAINED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from gptkit.text.corpora import Corpus
    from gptkit.text.pieces import Piece

_CONTEXT = 8  # tokens shown before and after the first difference


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainOptions(OutputOptions):
    """Train a tokenizer on the text that pretrain would train on."""

    data: tuple[str, ...] = option(
        (), "Text to train on, as for pretrain [default: the embedded corpus].", argument=True, metavar="DATA"
    )
    validation: str = option(
        "0.1", "What pretrain holds out for validation; the tokenizer is trained without it.", metavar="FILE|FRACTION"
    )
    tokenizer: str = option(
        "bpe:4096", f"{TRAINED}, for a byte-level BPE with N entries.", short="-t", metavar=TRAINED.replace(" or ", "|")
    )
    out: Path = option(Path("tokenizer"), "Directory to create; it may exist if it is empty.", short="-o")


@dataclass(frozen=True, kw_only=True)
class TokenizerCompareOptions(OutputOptions):
    """Compare two tokenizers on a text: tokens per byte and word, shared entries, first differing id, speed."""

    first: str = option(
        REQUIRED, f"A tokenizer directory or hf:NAME; {TRAINED} trains one on the text.", argument=True, metavar="A"
    )
    second: str = option(
        REQUIRED, "The tokenizer to compare with, given in any of these forms.", argument=True, metavar="B"
    )
    data: tuple[str, ...] = option(
        (), "Text to compare on, as for pretrain [default: the embedded corpus].", argument=True, metavar="DATA"
    )
    megabytes: float = option(10.0, "Use at most this much of the text, in MB.", minimum=0.001)


def run_train(options: TokenizerTrainOptions, console: Console) -> dict[str, Any]:
    """Train a tokenizer on the training text, save it, and return what --json prints."""
    from gptkit.text.tokenizers.kinds import needs_training
    from gptkit.text.tokenizers.loading import fingerprint

    if not needs_training(options.tokenizer):
        message = f"{options.tokenizer!r} cannot be trained"
        raise UsageError(message, where="--tokenizer", fix=f"write {TRAINED}")
    require_free(options.out, f"--out {options.out}")
    corpus = _open_corpus(options.data, options.validation, console)
    start = time.perf_counter()
    tokenizer = _train(options.tokenizer, corpus, console)
    seconds = time.perf_counter() - start
    with translate_os_errors("saving the tokenizer", fix="choose another --out"):
        tokenizer.save_pretrained(options.out)
    facts = {
        "tokenizer": options.tokenizer,
        "tokenizer_dir": options.out.absolute(),
        "entries": len(tokenizer),
        "training_bytes": corpus.train.count_bytes(),
        "seconds": seconds,
        "sha256": fingerprint(tokenizer),
    }
    console.table("the tokenizer", ("item", "value"), list({**facts, "seconds": f"{seconds:.1f}"}.items()))
    return facts | {"data": options.data}


def run_compare(options: TokenizerCompareOptions, console: Console) -> dict[str, Any]:
    """Compare two tokenizers on the same text and return what --json prints."""
    from gptkit.text.tokenizers.kinds import needs_training
    from gptkit.text.tokenizers.loading import load_tokenizer

    specs = (options.first, options.second)
    saved = {spec: load_tokenizer(spec) for spec in specs if not needs_training(spec)}  # before any text is read
    corpus = _open_corpus(options.data, "0.1", console)
    left, right = (saved[spec] if spec in saved else _train(spec, corpus, console) for spec in specs)
    found = compare(left, right, take(corpus.train.pieces(), round(options.megabytes * 1e6)))
    first, second, difference = found["first"], found["second"], found["difference"]
    figures = {
        "entries": ("entries", ","),
        "tokens": ("tokens", ","),
        "tokens per byte": ("tokens_per_byte", ".4f"),
        "tokens per word": ("tokens_per_word", ".3f"),
        "MB per second": ("megabytes_per_second", ".1f"),
    }
    rows = [(name, format(first[key], form), format(second[key], form)) for name, (key, form) in figures.items()]
    text = f"{found['text_bytes']:,} bytes, {found['text_words']:,} words"
    console.table(f"on {text}", ("", *specs), rows)
    console.result(f"shared entries: {found['shared_entries']:,}")
    if difference is None:
        console.result("ids: identical")
    else:
        console.result(f"ids: first differ at token {difference['token']:,}, in {difference['source']}")
        console.result(f"  {options.first}: {difference['first_text']!r}")
        console.result(f"  {options.second}: {difference['second_text']!r}")
    fewest = options.first if first["tokens"] <= second["tokens"] else options.second
    return {"tokenizers": list(specs), "data": options.data, "fewest_tokens": fewest, **found}


def _open_corpus(data: tuple[str, ...], validation: str, console: Console) -> Corpus:
    from gptkit.text.corpora import open_corpus

    corpus = open_corpus(data, validation)
    for note in (corpus.description, *corpus.notes):
        console.say(note)
    return corpus


def _train(spec: str, corpus: Corpus, console: Console) -> PreTrainedTokenizerBase:
    from gptkit.text.tokenizers.kinds import train_tokenizer, training_note

    tokenizer = train_tokenizer(spec, (piece.text for piece in corpus.train.pieces()))
    if note := training_note(spec, tokenizer):
        console.warn(note)
    return tokenizer


def take(pieces: Iterable[Piece], size: int) -> list[Piece]:
    """Return the first pieces that add up to at least `size` UTF-8 bytes, or all of them."""
    taken, total = [], 0
    for piece in pieces:
        taken.append(piece)
        total += len(piece.text.encode())
        if total >= size:
            break
    return taken


def compare(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Encode `pieces` with both tokenizers and compare the results.

    Words are separated by white space. Entries are shared if they decode to the same text, up to outer spaces. Speed is
    in UTF-8 bytes, without set-up. The difference is the index, from 0, of the first token whose ids differ, and the
    text around it as each tokenizer decodes it.
    """
    size = sum(len(piece.text.encode()) for piece in pieces)
    words = sum(len(piece.text.split()) for piece in pieces)
    encoded = _encode(first, pieces), _encode(second, pieces)
    measured = [
        {
            "entries": len(tokenizer),
            "tokens": len(encoding.ids),
            "tokens_per_byte": len(encoding.ids) / max(1, size),
            "tokens_per_word": len(encoding.ids) / max(1, words),
            "megabytes_per_second": size / 1e6 / encoding.seconds,
        }
        for tokenizer, encoding in zip((first, second), encoded, strict=True)
    ]
    token, difference = _first_difference(*encoded), None
    if token is not None:
        document = max(encoded, key=lambda encoding: len(encoding.ids)).documents[token]
        around = slice(max(0, token - _CONTEXT), token + _CONTEXT)
        difference = {
            "token": token,
            "source": next(piece.source for piece in pieces if piece.document == document),
            "first_text": str(first.decode(encoded[0].ids[around].tolist())),
            "second_text": str(second.decode(encoded[1].ids[around].tolist())),
        }
    return {
        "text_bytes": size,
        "text_words": words,
        "first": measured[0],
        "second": measured[1],
        "shared_entries": len(_entry_texts(first) & _entry_texts(second)),
        "same_ids": difference is None,
        "difference": difference,
    }


class _Encoded(NamedTuple):
    ids: NDArray[Any]  # (tokens,)
    documents: NDArray[np.int64]  # (tokens,) the index of each token's document
    seconds: float


def _encode(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> _Encoded:
    import numpy as np

    from gptkit.text.tokenizers.encoding import encode_documents, encode_pieces

    encode_pieces(tokenizer, [""])  # set up the fast path
    start = time.perf_counter()
    found = list(encode_documents(tokenizer, pieces))
    seconds = time.perf_counter() - start
    ids = np.concatenate([np.empty(0, np.uint16), *(ids for _, ids in found)])
    documents = np.repeat([document for document, _ in found], [len(ids) for _, ids in found])
    return _Encoded(ids, documents, seconds)


def _first_difference(first: _Encoded, second: _Encoded) -> int | None:
    both = min(len(first.ids), len(second.ids))
    differs = first.ids[:both] != second.ids[:both]
    if differs.any():
        return int(differs.argmax())
    return None if len(first.ids) == len(second.ids) else both


def _entry_texts(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return the text of each entry; an entry that is part of a character is returned as it is."""
    texts = set()
    for entry, id in tokenizer.get_vocab().items():
        text = str(tokenizer.decode([id]))
        texts.add(entry if "\ufffd" in text else text.strip(" "))
    return texts
