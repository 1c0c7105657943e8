"""`gptkit tokenizer`: train one and save it, or compare two."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from gptkit.console import Console
from gptkit.errors import InputError, UsageError
from gptkit.manage.options import TokenizerCompareOptions, TokenizerTrainOptions
from gptkit.manage.tokenizer_comparison import Comparison, compare, take
from gptkit.text.corpora import Corpus, open_corpus
from gptkit.text.tokenizers.kinds import needs_training, train_tokenizer, training_note
from gptkit.text.tokenizers.loading import fingerprint, load_tokenizer


def run_train(options: TokenizerTrainOptions, console: Console) -> dict[str, Any]:
    """Train a tokenizer on the training text and save it; return what `--json` prints."""
    if not needs_training(options.tokenizer):
        raise UsageError(f"{options.tokenizer!r} is not trained", where="--tokenizer", fix="write char or bpe:N")
    _require_empty(options.out)
    corpus = _opened(options.data, options.validation, console)
    start = time.perf_counter()
    tokenizer = _trained(options.tokenizer, corpus, console)
    seconds = time.perf_counter() - start
    try:
        tokenizer.save_pretrained(options.out)
    except OSError as error:
        message = f"the tokenizer cannot be saved: {error.strerror or error}"
        raise InputError(message, where=str(options.out), fix="name another --out") from error
    facts = {
        "tokenizer": options.tokenizer,
        "tokenizer_dir": options.out.absolute(),
        "entries": len(tokenizer),
        "training_bytes": corpus.train_bytes,
        "seconds": seconds,
        "sha256": fingerprint(tokenizer),
    }
    console.table("the tokenizer", ("what", "value"), list({**facts, "seconds": f"{seconds:.1f}"}.items()))
    return facts


def run_compare(options: TokenizerCompareOptions, console: Console) -> dict[str, Any]:
    """Measure two tokenizers on the same text; return what `--json` prints."""
    specs = (options.first, options.second)
    there = {spec: load_tokenizer(spec) for spec in specs if not needs_training(spec)}  # before any text is read
    corpus = _opened(options.data, "0.1", console)
    first, second = (there[spec] if spec in there else _trained(spec, corpus, console) for spec in specs)
    comparison = compare(first, second, take(corpus.train_pieces(), round(options.megabytes * 1e6)))
    _show(comparison, options, console)
    fewest = options.first if comparison.first.tokens <= comparison.second.tokens else options.second
    return {"tokenizers": [options.first, options.second], "fewest_tokens": fewest, **comparison.as_json()}


def _opened(data: tuple[str, ...], validation: str, console: Console) -> Corpus:
    corpus = open_corpus(data, validation)
    for note in (corpus.description, *corpus.notes):
        console.say(note)
    return corpus


def _require_empty(directory: Path) -> None:
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise UsageError("there is something already", where=f"--out {directory}", fix="name a new directory")


def _trained(spec: str, corpus: Corpus, console: Console) -> PreTrainedTokenizerBase:
    tokenizer = train_tokenizer(spec, (piece.text for piece in corpus.train_pieces()))
    note = training_note(spec, tokenizer)
    if note:
        console.warn(note)
    return tokenizer


def _show(comparison: Comparison, options: TokenizerCompareOptions, console: Console) -> None:
    first, second = comparison.first, comparison.second
    rows = [
        ("entries", f"{first.entries:,}", f"{second.entries:,}"),
        ("tokens", f"{first.tokens:,}", f"{second.tokens:,}"),
        ("tokens per byte", f"{first.tokens_per_byte:.4f}", f"{second.tokens_per_byte:.4f}"),
        ("tokens per word", f"{first.tokens_per_word:.3f}", f"{second.tokens_per_word:.3f}"),
        ("MB per second", f"{first.megabytes_per_second:.1f}", f"{second.megabytes_per_second:.1f}"),
    ]
    text = f"{comparison.text_bytes:,} bytes, {comparison.text_words:,} words"
    console.table(f"on {text}", ("", options.first, options.second), rows)
    console.result(f"entries that both have: {comparison.shared_entries:,}")
    difference = comparison.difference
    if difference is None:
        console.result("ids: all equal")
        return
    console.result(f"ids: differ first at token {difference.token:,}, in {difference.source}")
    for spec, around in ((options.first, difference.first_text), (options.second, difference.second_text)):
        console.result(f"  {spec}: {around!r}")
