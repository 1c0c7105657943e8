"""Encode text with GPT-1's tokenizer: the same ids as OpenAI's text_utils.py with current ftfy and spaCy.

    ftfy        repair mojibake, entities, curly quotes and line breaks, line by line
    normalize   unify some dashes and quotes, set runs of punctuation apart, reduce white space to spaces and newlines
    spaCy       split into tokens by its English rules, without a trained model
    BPE         encode each token in lower case, with `</w>` after its last character; unknown pieces have id 0

No spaCy token or exception spans a newline, so each line is encoded by itself, with a newline token between two.

Documents come in pieces, but how ftfy repairs a line and where newline tokens go depends on more than one piece. So
pieces are joined, and cut again after line ends into parts. Each part is encoded by itself; one newline token stands
between two parts of a document if a line ended there, and none at the document's ends. Only a line of more than a
million characters is cut at a space (ftfy cuts it as well, at every millionth character, even within a word).
"""

from __future__ import annotations

import functools
import io
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, groupby, islice, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import OutOfResources, UsageError
from gptkit.text.pieces import Piece, batches, encoded_ahead
from gptkit.text.tokenizers.any_tokenizer import NEWLINE_TOKEN

UNKNOWN_ID = 0
LONGEST_LINE = 1_000_000
TASK_CHARACTERS = 1 << 17
TASKS_WORTH_WORKERS = 32  # a worker takes some seconds to import spaCy

_REMEMBERED = 1 << 18
_UNTOUCHED_BY_FTFY = re.compile(r"[\t\n -%'-~]*")  # ASCII without control characters and the & of entities
_UNIFIED = str.maketrans({"\u2014": "-", "\u2013": "-", "\u2015": "-", "\u2026": "...", "\u00b4": "'"})
# No backslash: OpenAI's pattern names it, but in a plain string, where `\\+` came out as one more plus sign.
_PUNCTUATION_RUN = re.compile(r"""([-~!";?+,()/*\[\]{}|_])\1*""")


Ids = NDArray[np.int64]


class Part(NamedTuple):
    """Lines of a document; `unescape_html` is false after a line with a `<`, where ftfy stops unescaping HTML."""

    text: str
    unescape_html: bool = True
    document: int = 0


class GPT1Encoder:
    """Encodes with OpenAI's vocabulary (piece -> id, including the newline token) and merges (in order of rank).

    UsageError if ftfy or spaCy is not installed: nothing else gives the same ids.
    """

    def __init__(self, vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
        self._ftfy, spacy = libraries()
        self._english = spacy.blank("en")
        self._split = self._english.tokenizer
        self._split_once = _without_exception_rescan(self._split)
        self.vocabulary = vocabulary
        self.merges = merges
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._token_ids = functools.lru_cache(_REMEMBERED)(self._encode_token)
        self._word_ids = functools.lru_cache(_REMEMBERED)(self._encode_word)
        self._one_text_at_a_time = threading.Lock()  # memory zones of spaCy do not nest
        self.newline_id = vocabulary[NEWLINE_TOKEN]

    def encode(self, text: str) -> Ids:
        """Return the ids of a whole text, shape (tokens,)."""
        [ids] = join_lines([self.encode_part(Part(text))], self.newline_id)
        return ids

    def encode_part(self, part: Part) -> Ids:
        """Return the ids of a part of a document, with a newline token at an end where the text has a line break."""
        ids: list[int] = []
        line_broken = False
        with self._one_text_at_a_time, self._english.memory_zone():  # else spaCy would keep every word it ever saw
            text = self._repaired(part).translate(_UNIFIED)
            for number, line in enumerate(_PUNCTUATION_RUN.sub(r" \g<0> ", text).split("\n")):
                words = line.split()
                line_broken = line_broken or number > 0
                if not words:
                    continue
                if line_broken:
                    ids.append(self.newline_id)
                    line_broken = False
                known = [self._word_ids(word) for word in words]
                if None in known:
                    known = [self._token_ids(token.text.lower()) for token in self._split(" ".join(words))]
                ids += [id for word in known if word for id in word]
        if line_broken:
            ids.append(self.newline_id)
        return np.array(ids, np.int64)

    def _repaired(self, part: Part) -> str:
        """Return `ftfy.fix_text` of a part, which takes a third of the time if its plain ASCII lines are skipped."""
        lines, unescape = [], part.unescape_html
        for line in io.StringIO(part.text):  # splits only at \n, as ftfy does
            unescape = unescape and "<" not in line
            if not _UNTOUCHED_BY_FTFY.fullmatch(line):
                line = self._ftfy.fix_text(line, unescape_html="auto" if unescape else False)
            lines.append(line)
        return "".join(lines)

    def _encode_word(self, word: str) -> tuple[int, ...] | None:
        """Return the ids of a word between spaces, or None if they may depend on its neighbours.

        spaCy rescans a text that it has split for its exceptions, also across spaces. A match that it then discards
        (`: )` is not `:)`) hides the exceptions that it overlaps, so the ids of any word that the rescan changes
        may depend on its neighbours.
        """
        tokens = [token.text for token in self._split(word)]
        if tokens != [word] and tokens != [token.text for token in self._split_once(word)]:
            return None
        return tuple(id for token in tokens for id in self._token_ids(token.lower()))

    def _encode_token(self, token: str) -> tuple[int, ...]:
        return tuple(self.vocabulary.get(piece, UNKNOWN_ID) for piece in merged_pieces(token, self._ranks))


def merged_pieces(token: str, ranks: Mapping[tuple[str, str], int]) -> list[str]:
    """Return the BPE pieces of a token: merge all occurrences of the best-ranked pair, until none has a rank.

    The tokenizers library merges one occurrence at a time, and so may merge a new pair of better rank in between.
    """
    pieces = [*token[:-1], token[-1] + "</w>"]
    while len(pieces) > 1:
        best = min(pairwise(pieces), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged: list[str] = []
        for piece in pieces:
            if merged and (merged[-1], piece) == best:
                merged[-1] += piece
            else:
                merged.append(piece)
        pieces = merged
    return pieces


def libraries() -> tuple[Any, Any]:
    """Return the modules ftfy and spacy; UsageError with the installation command if one is missing."""
    try:
        import ftfy
        import spacy
    except ImportError as error:
        raise UsageError(
            f"GPT-1's tokenizer needs ftfy and spaCy, and {error.name} is not installed",
            fix="pip install 'gptkit[gpt1]'",
        ) from error
    return ftfy, spacy


def library_versions() -> dict[str, str]:
    """Return the versions of everything besides vocabulary and merges that the ids depend on."""
    ftfy, spacy = libraries()
    return {"ftfy": ftfy.__version__, "spacy": spacy.__version__, "unicode": unicodedata.unidata_version}


def _without_exception_rescan(split: Any) -> Any:
    """Return spaCy's tokenizer without its rescan for exceptions.

    spaCy rescans only for exceptions in which it found a prefix, suffix or infix on loading them, so the searches find
    nothing until all are loaded.
    """
    loaded = False

    def once_loaded(search: Callable[[str], Any], nothing: Any) -> Callable[[str], Any]:
        return lambda text: search(text) if loaded else nothing

    tokenizer = type(split)(
        split.vocab,
        rules=split.rules,
        prefix_search=once_loaded(split.prefix_search, None),
        suffix_search=once_loaded(split.suffix_search, None),
        infix_finditer=once_loaded(split.infix_finditer, ()),
        token_match=split.token_match,
        url_match=split.url_match,
    )
    loaded = True
    return tokenizer


# --- documents in pieces, on all processors ---


def encode_in_order(encoder: GPT1Encoder, pieces: Iterable[Piece], *, workers: int) -> Iterator[tuple[int, Ids]]:
    """Yield (document, ids) for consecutive parts of all documents, each document at least once.

    Enough text goes to `workers` new processes; OutOfResources if the system kills one.
    """
    tasks = batches(document_parts(pieces), TASK_CHARACTERS)
    first = list(islice(tasks, TASKS_WORTH_WORKERS))
    tasks = chain(first, tasks)
    if workers < 2 or len(first) < TASKS_WORTH_WORKERS:
        encoded: Iterator[tuple[Part, Ids]] = ((part, encoder.encode_part(part)) for task in tasks for part in task)
    else:
        encoded = _encoded_by_workers(encoder, tasks, workers)
    for document, members in groupby(encoded, key=lambda found: found[0].document):
        for ids in join_lines((ids for _, ids in members), encoder.newline_id):
            yield document, ids


def document_parts(pieces: Iterable[Piece]) -> Iterator[Part]:
    """Join the pieces of each document and yield it in parts that end at line ends."""
    for document, members in groupby(pieces, key=lambda piece: piece.document):
        rest, unescape_html = "", True
        for piece in members:
            rest += piece.text
            end = rest.rfind("\n") + 1
            if end == 0 and len(rest) > LONGEST_LINE:
                end = max(0, rest.rfind(" "))
            if end > 0:
                yield Part(rest[:end], unescape_html, document)
                unescape_html = unescape_html and "<" not in rest[:end]
                rest = rest[end:]
        yield Part(rest, unescape_html, document)


def join_lines(parts: Iterable[Ids], newline_id: int) -> Iterator[Ids]:
    """Yield the ids of each part of a document, with a newline token first if a line ended before it."""
    started = line_broken = False
    for ids in parts:
        if ids.size and ids[0] == newline_id:
            line_broken, ids = True, ids[1:]
        if ids.size == 0:
            yield ids
            continue
        ends_line = ids[-1] == newline_id
        ids = ids[:-1] if ends_line else ids
        yield np.insert(ids, 0, newline_id) if started and line_broken else ids
        started, line_broken = True, ends_line


def _encoded_by_workers(encoder: GPT1Encoder, tasks: Iterable[list[Part]], workers: int) -> Iterator[tuple[Part, Ids]]:
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),  # fork would copy locks that other threads hold
        initializer=_start_worker,
        initargs=(encoder.vocabulary, encoder.merges),
    )
    try:
        yield from encoded_ahead(pool, _encode_in_worker, tasks, 3 * workers)
    except BrokenProcessPool as error:
        message = "a tokenizer process was killed"
        raise OutOfResources(message, where="--tokenizer", fix="free memory and rerun the command") from error
    finally:
        pool.shutdown(cancel_futures=True)


_worker_encoder: GPT1Encoder | None = None


def _start_worker(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> None:
    global _worker_encoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and shuts the pool down
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker_encoder = GPT1Encoder(vocabulary, merges)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _encode_in_worker(parts: list[Part]) -> list[Ids]:
    assert _worker_encoder is not None, "set by the pool's initializer"
    return [_worker_encoder.encode_part(part) for part in parts]
