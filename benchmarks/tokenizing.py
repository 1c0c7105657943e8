"""Tokenizing a large text: gptkit's throughput beside that of a bare `Tokenizer.encode_batch`, and the memory it takes.

    python benchmarks/tokenizing.py --megabytes 100

The text is the embedded corpus (or --source FILE) repeated in one file. gptkit's seconds hold everything from opening
the file to the cached, verified token files: hashing, splitting, encoding, writing. The bare seconds hold the calls of
encode_batch alone, over the same text, read beforehand, 64 texts of 64 Ki characters a call; the results are dropped.
Memory is the growth of RssAnon (Linux), sampled every 20 ms: mapped pages of the token files do not count in it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gptkit.text.blocks import prepare
from gptkit.text.corpora import open_corpus
from gptkit.text.embedded import embedded_texts
from gptkit.text.tokenizers.kinds import needs_training, train_tokenizer
from gptkit.text.tokenizers.loading import load_tokenizer

TEXT_CHARACTERS, TEXTS_A_CALL = 1 << 16, 64


def main() -> None:
    options = parsed_options()
    text = options.source.read_text() if options.source else "".join(text for _, text in embedded_texts())
    tokenizer = train_tokenizer(options.tokenizer, [text]) if needs_training(options.tokenizer) else None
    tokenizer = tokenizer or load_tokenizer(options.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GPTKIT_CACHE"] = os.path.join(folder, "cache")
        path = Path(folder, "text.txt")
        size = write_repeated(path, text.encode(), options.megabytes * 10**6)
        tokens, seconds, grown = measured_gptkit(path, tokenizer)
        figures = {
            "megabytes": size / 10**6,
            "tokens": tokens,
            "gptkit_mb_per_second": size / 10**6 / seconds,
            "rss_anon_grown_mb": grown,
        }
        if not options.memory_only:
            figures["encode_batch_mb_per_second"] = size / 10**6 / measured_bare(path, tokenizer)
            figures["ratio"] = figures["gptkit_mb_per_second"] / figures["encode_batch_mb_per_second"]
    print(json.dumps({name: round(figure, 3) for name, figure in figures.items()}))


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--tokenizer", default="bpe:8192", help="char, bpe:N, or a directory")
    parser.add_argument("--source", type=Path, help="text to repeat [default: the embedded corpus]")
    parser.add_argument("--memory-only", action="store_true", help="leave out the bare encode_batch")
    return parser.parse_args()


def write_repeated(path: Path, text: bytes, size: int) -> int:
    with path.open("wb") as file:
        for part in itertools.repeat(text, -(-size // len(text))):
            file.write(part)
    return path.stat().st_size


def measured_gptkit(path: Path, tokenizer: Any) -> tuple[int, float, float]:
    """Return tokens, seconds and megabytes that RssAnon grew."""
    tokenizer("warm up")
    with peak_memory() as grown:
        start = time.perf_counter()
        text = prepare(open_corpus([str(path)], "0.1"), tokenizer)
        seconds = time.perf_counter() - start
    return len(text.train) + len(text.validation), seconds, grown()


@contextmanager
def peak_memory() -> Iterator[Any]:
    """Watch this process; the result tells, afterwards, by how many megabytes RssAnon grew at most."""
    done, seen = threading.Event(), [rss_anon()]

    def watch() -> None:
        while not done.wait(0.02):
            seen[1:] = [max(seen[-1], rss_anon())]

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: (seen[-1] - seen[0]) / 10**6
    finally:
        done.set()
        watcher.join()


def rss_anon() -> int:
    """Return the bytes of anonymous memory that this process has in RAM; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def measured_bare(path: Path, tokenizer: Any) -> float:
    """Return the seconds that the tokenizer's own encode_batch takes for the text."""
    seconds = 0.0
    with path.open() as file:
        texts = iter(lambda: file.read(TEXT_CHARACTERS), "")
        while batch := list(itertools.islice(texts, TEXTS_A_CALL)):
            start = time.perf_counter()
            tokenizer.backend_tokenizer.encode_batch(batch, add_special_tokens=False)
            seconds += time.perf_counter() - start
    return seconds


if __name__ == "__main__":
    main()
