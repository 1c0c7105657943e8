"""`gptkit tokenizer`: train a tokenizer, compare two, show the tokens of a text or the text of tokens."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gptkit.console import Console
from gptkit.errors import UsageError
from gptkit.manage.options import (
    TokenizerCompareOptions,
    TokenizerDecodeOptions,
    TokenizerEncodeOptions,
    TokenizerOptions,
    TokenizerTrainOptions,
)
from gptkit.system.encodings import UTF8
from gptkit.system.files import require_free, translate_os_errors
from gptkit.system.reading import given_text
from gptkit.system.run_layout import did_you_mean
from gptkit.text.tokenizers.any_tokenizer import TRAINED, AnyTokenizer, unknown_note

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from gptkit.text.corpora import Corpus
    from gptkit.text.pieces import Piece

MOSTLY_KNOWN = 0.01  # of the tokens unknown: a tokenizer with more is not suggested beside one with fewer
_CONTEXT = 8  # tokens shown before and after the first difference


def run_train(options: TokenizerTrainOptions, console: Console) -> dict[str, Any]:
    """Train a tokenizer on the training text, save it, and return what --json prints."""
    from gptkit.text.corpora import check_corpus
    from gptkit.text.tokenizers.kinds import needs_training

    if not needs_training(options.tokenizer):
        message = f"{options.tokenizer!r} cannot be trained"
        raise UsageError(message, where="--tokenizer", fix=f"write {TRAINED}")
    require_free(options.out, f"--out {options.out}")
    check_corpus(options.data, options.validation)

    from gptkit.text.tokenizers.loading import fingerprint  # imports transformers

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
        "training_bytes": corpus.text_for(options.tokenizer).count_bytes(),
        "seconds": seconds,
        "sha256": fingerprint(tokenizer),
    }
    console.table("the tokenizer", ("item", "value"), list({**facts, "seconds": f"{seconds:.1f}"}.items()))
    return facts | {"data": options.data, "encoding": options.encoding}


def run_compare(options: TokenizerCompareOptions, console: Console) -> dict[str, Any]:
    """Compare two tokenizers on the same text and return what --json prints."""
    from gptkit.text.corpora import check_corpus
    from gptkit.text.tokenizers.kinds import check_tokenizer, needs_training
    from gptkit.text.tokenizers.shown import visible
    from gptkit.text.words import RULE

    specs = (options.first, options.second)
    for spec in specs:
        check_tokenizer(spec)
    if third := next((name for name in options.data if needs_training(name) and not Path(name).exists()), None):
        message = f"two tokenizers are compared; the third argument, {third!r}, names the text"
        raise UsageError(message, where="DATA", fix="compare two at a time")
    check_corpus(options.data, "0.1")

    from gptkit.text.tokenizers.loading import load_tokenizer  # imports transformers

    saved = {spec: load_tokenizer(spec) for spec in specs if not needs_training(spec)}  # before any text is read
    with _text_to_compare(options, console) as (source, corpus):
        left, right = (saved[spec] if spec in saved else _train(spec, corpus, console) for spec in specs)
        found = compare(left, right, take(corpus.train.pieces(), round(options.megabytes * 1e6)))
    first, second, difference = found["first"], found["second"], found["difference"]
    figures = {
        "entries": ("entries", ","),
        "tokens": ("tokens", ","),
        "unknown tokens": ("unknown_tokens", ","),
        "tokens per byte": ("tokens_per_byte", ".4f"),
        "tokens per word": ("tokens_per_word", ".3f"),
        "MB per second": ("megabytes_per_second", ".1f"),
    }
    rows = [
        (name, *("n/a" if each[key] is None else format(each[key], form) for each in (first, second)))
        for name, (key, form) in figures.items()
    ]
    text = f"{found['text_bytes']:,} bytes, {found['text_words']:,} {RULE}"
    console.table(f"on {text}", ("", *specs), rows)
    for spec, side in zip(specs, (first, second), strict=True):
        if side["unknown_tokens"]:
            console.warn(unknown_note(spec, side["unknown_tokens"], side["tokens"]))
    console.result(f"shared entries: {found['shared_entries']:,}")
    if difference is None:
        console.result("ids: identical")
    else:
        console.result(f"ids: first differ at token {difference['token']:,}, in {difference['source']}")
        for spec, side in zip(specs, ("first", "second"), strict=True):
            console.result(f"  {spec}: {' '.join(map(visible, difference[f'{side}_pieces']))}")
    fewest = options.first if first["tokens"] <= second["tokens"] else options.second
    knows = [side["unknown_tokens"] <= MOSTLY_KNOWN * side["tokens"] for side in (first, second)]
    suggested = fewest if knows[0] == knows[1] else specs[knows.index(True)]
    return {"tokenizers": list(specs), **source, "fewest_tokens": fewest, "suggested": suggested, **found}


def run_encode(options: TokenizerEncodeOptions, console: Console) -> dict[str, Any]:
    """Print the tokens of a text and return what --json prints."""
    from gptkit.text.tokenizers.encoding import count_unknown, encode_pieces
    from gptkit.text.tokenizers.shown import pieces_of, visible

    text = given_text(options.text, "the text", "TEXT", console.say)
    name, tokenizer = _chosen(options, console)
    (ids,) = encode_pieces(tokenizer, [text])
    if unknown := count_unknown(tokenizer, ids):
        console.warn(unknown_note("the text", unknown, len(ids)))
    pieces = pieces_of(tokenizer, ids.tolist())
    console.tokens([visible(piece) for piece in pieces], [str(id) for id in ids])
    console.say(f"{len(ids):,} tokens, {len(text):,} characters, {len(text.encode()):,} bytes")
    return {"tokenizer": name, "ids": ids.tolist(), "pieces": pieces}


def run_decode(options: TokenizerDecodeOptions, console: Console) -> dict[str, Any]:
    """Print the text of ids and return what --json prints."""
    name, tokenizer = _chosen(options, console)
    known = {*tokenizer.get_vocab().values()}
    if unknown := next((id for id in options.ids if id not in known), None):
        raise UsageError(f"no token has id {unknown}", where="ID", fix=f"pass ids from {min(known)} to {max(known)}")
    text = str(tokenizer.decode(list(options.ids), clean_up_tokenization_spaces=False))
    console.stream(f"{text}\n")
    return {"tokenizer": name, "text": text}


def _chosen(options: TokenizerOptions, console: Console) -> tuple[str, AnyTokenizer]:
    """Return the name of the tokenizer that the options ask for, else of the newest run, and the tokenizer."""
    from gptkit.decoding.engines import open_tokenizer
    from gptkit.text.tokenizers.kinds import needs_training
    from gptkit.training.finished_runs import newest_model

    if options.tokenizer and options.model:
        raise UsageError("both name a tokenizer", where="--model, --tokenizer", fix="leave one of them out")
    name = options.tokenizer or options.model or newest_model(console)
    if (directory := Path(name).expanduser()).is_dir():
        return name, open_tokenizer(directory)
    if not name.startswith("hf:") and not needs_training(name):
        where = f"--tokenizer {name}" if options.tokenizer else f"--model {name}"
        fix = did_you_mean(directory) or f"check the path, or write hf:{name} for the hub"
        raise UsageError("no such directory", where=where, fix=fix)

    from gptkit.text.tokenizers.loading import load_tokenizer  # imports transformers

    return name, load_tokenizer(name)


@contextmanager
def _text_to_compare(options: TokenizerCompareOptions, console: Console) -> Iterator[tuple[dict[str, Any], Corpus]]:
    """Open the text of DATA, else of the pretrain run behind A or B, else the embedded one; also yield its options."""
    from gptkit.training.run_text import data_of, open_run_text, pretrain_run_of, run_encoding

    fix = "pass a text: gptkit tokenizer compare A B FILE"
    for spec in (options.first, options.second) if not options.data else ():
        try:
            run, config = pretrain_run_of(Path(spec), fix)
        except UsageError:  # it is not in a run
            continue
        with run_encoding(config):
            corpus = open_run_text(run, config, fix)
            console.say(f"comparing on the training text of {run}: {corpus.description}")
            yield {"data": data_of(config), "encoding": config.get("encoding") or UTF8}, corpus
            return
    yield {"data": options.data, "encoding": options.encoding}, _open_corpus(options.data, "0.1", console)


def _open_corpus(data: tuple[str, ...], validation: str, console: Console) -> Corpus:
    from gptkit.text.corpora import open_corpus

    corpus = open_corpus(data, validation)
    for note in (corpus.description, *corpus.notes):
        console.say(note)
    return corpus


def _train(spec: str, corpus: Corpus, console: Console) -> PreTrainedTokenizerBase:
    from gptkit.text.tokenizers.kinds import train_tokenizer, training_note

    tokenizer = train_tokenizer(spec, (piece.text for piece in corpus.text_for(spec).pieces()))
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

    Words are those of text/words.py. Entries are shared if they decode to the same text, up to outer spaces. Speed is
    in UTF-8 bytes, without set-up. The difference is the index, from 0, of the first token whose ids differ, and the
    text around it as each tokenizer decodes it.
    """
    from gptkit.text.tokenizers.encoding import count_unknown
    from gptkit.text.tokenizers.shown import pieces_of
    from gptkit.text.words import count_words

    size = sum(len(piece.text.encode()) for piece in pieces)
    words = sum(count_words(piece.text) for piece in pieces)
    encoded = _encode(first, pieces), _encode(second, pieces)
    measured = [
        {
            "entries": len(tokenizer),
            "tokens": len(encoding.ids),
            "unknown_tokens": count_unknown(tokenizer, encoding.ids),
            "tokens_per_byte": len(encoding.ids) / max(1, size),
            "tokens_per_word": len(encoding.ids) / words if words else None,
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
            "first_pieces": pieces_of(first, encoded[0].ids[around].tolist()),
            "second_pieces": pieces_of(second, encoded[1].ids[around].tolist()),
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
