"""`gptkit tokenizer`: train one and save it, or compare two."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptkit.console import Console
from gptkit.errors import InputError, UsageError
from gptkit.options import OutputOptions, option

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gptkit.manage.tokenizer_comparison import Comparison
    from gptkit.text.corpora import Corpus


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainOptions(OutputOptions):
    """Train a tokenizer on the text that pretrain would train on."""

    data: tuple[str, ...] = option(
        (), "Text to train on, as for pretrain. None = the embedded corpus.", argument=True, metavar="DATA"
    )
    validation: str = option(
        "0.1", "What pretrain will hold out: the tokenizer is not trained on it.", metavar="FILE|FRACTION"
    )
    tokenizer: str = option(
        "bpe:4096", "char, or bpe:N for a byte-level BPE of N entries.", short="-t", metavar="char|bpe:N"
    )
    out: Path = option(Path("tokenizer"), "Directory to write; it must not exist or be empty.", short="-o")


@dataclass(frozen=True, kw_only=True)
class TokenizerCompareOptions(OutputOptions):
    """Compare two tokenizers on a text: tokens per byte and word, shared entries, ids, speed."""

    first: str = option(
        None, "A directory, hf:NAME, or char or bpe:N, which are trained on the text.", argument=True, metavar="A"
    )
    second: str = option(None, "The other one.", argument=True, metavar="B")
    data: tuple[str, ...] = option(
        (), "Text to compare on, as for pretrain. None = the embedded corpus.", argument=True, metavar="DATA"
    )
    megabytes: float = option(10.0, "Compare on this much of the text at most.", minimum=0.001)


def run_train(options: TokenizerTrainOptions, console: Console) -> dict[str, Any]:
    """Train a tokenizer on the training text and save it; return what `--json` prints."""
    from gptkit.text.tokenizers.kinds import needs_training
    from gptkit.text.tokenizers.loading import fingerprint

    if not needs_training(options.tokenizer):
        raise UsageError(f"{options.tokenizer!r} is not trained", where="--tokenizer", fix="write char or bpe:N")
    if options.out.exists() and not (options.out.is_dir() and not any(options.out.iterdir())):
        where = f"--out {options.out}"
        raise UsageError("there is something already", where=where, fix="name a new directory")
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
        "training_bytes": corpus.train.count_bytes(),
        "seconds": seconds,
        "sha256": fingerprint(tokenizer),
    }
    console.table("the tokenizer", ("what", "value"), list({**facts, "seconds": f"{seconds:.1f}"}.items()))
    return facts


def run_compare(options: TokenizerCompareOptions, console: Console) -> dict[str, Any]:
    """Measure two tokenizers on the same text; return what `--json` prints."""
    from gptkit.manage.tokenizer_comparison import compare, take
    from gptkit.text.tokenizers.kinds import needs_training
    from gptkit.text.tokenizers.loading import load_tokenizer

    specs = (options.first, options.second)
    there = {spec: load_tokenizer(spec) for spec in specs if not needs_training(spec)}  # before any text is read
    corpus = _opened(options.data, "0.1", console)
    first, second = (there[spec] if spec in there else _trained(spec, corpus, console) for spec in specs)
    comparison = compare(first, second, take(corpus.train.pieces(), round(options.megabytes * 1e6)))
    _show(comparison, options, console)
    fewest = options.first if comparison.first.tokens <= comparison.second.tokens else options.second
    return {"tokenizers": [options.first, options.second], "fewest_tokens": fewest, **dataclasses.asdict(comparison)}


def _opened(data: tuple[str, ...], validation: str, console: Console) -> Corpus:
    from gptkit.text.corpora import open_corpus

    corpus = open_corpus(data, validation)
    for note in (corpus.description, *corpus.notes):
        console.say(note)
    return corpus


def _trained(spec: str, corpus: Corpus, console: Console) -> PreTrainedTokenizerBase:
    from gptkit.text.tokenizers.kinds import train_tokenizer, training_note

    tokenizer = train_tokenizer(spec, (piece.text for piece in corpus.train.pieces()))
    if note := training_note(spec, tokenizer):
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
