"""The kinds of tokenizers that gptkit can train, each a few functions and a row in KINDS at the end of this file.

char     one token per character: trained by collecting those that occur, encoded with a table of all code points
bpe:N    GPT-2's byte-level BPE: any text, no unknown tokens; trained to N entries, or read from OpenAI's files
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from gptkit.errors import InputError, UsageError
from gptkit.system.run_layout import did_you_mean
from gptkit.text.tokenizers.any_tokenizer import END_OF_TEXT
from gptkit.text.tokenizers.files import Merge, find_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

Encode = Callable[[str], NDArray[Any]]

CODE_POINTS = 0x110000
EACH_CHARACTER = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
UNKNOWN = "<unk>"
SMALLEST = 257  # all bytes, and END_OF_TEXT

_SPLIT = pre_tokenizers.ByteLevel(add_prefix_space=False)  # with GPT-2's regular expression


def _train_char(spec: str, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the characters in `texts`, with ids 0, 1, ... in order, then END_OF_TEXT and UNKNOWN.

    UNKNOWN stands for any other character, which a later text may have. InputError if there is no text.
    """
    from transformers import PreTrainedTokenizerFast  # not at the top: it takes seconds, and encoding needs none of it

    occurs = np.zeros(CODE_POINTS, np.bool_)
    for text in texts:
        occurs[code_points(text)] = True
    characters = [chr(point) for point in np.flatnonzero(occurs)]
    if not characters:
        raise InputError("no text to train a tokenizer on", where="DATA", fix="pass files with text")
    vocabulary = {token: id for id, token in enumerate([*characters, END_OF_TEXT, UNKNOWN])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = EACH_CHARACTER
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([END_OF_TEXT, UNKNOWN])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, unk_token=UNKNOWN
    )


def _char_encoder(tokenizer: Any, dtype: np.dtype[Any]) -> Encode | None:
    """Return a function that encodes by table look-up, None if the tokenizer is of another kind."""
    if not is_char(tokenizer):
        return None
    table = np.full(CODE_POINTS, tokenizer.unk_token_id, dtype)
    for token, id in tokenizer.get_vocab().items():
        if len(token) == 1:
            table[ord(token)] = id
    return lambda text: table[code_points(text)]


def is_char(tokenizer: Any) -> bool:
    """Return whether a tokenizer is of kind char: a word-level vocabulary, split into characters and nothing else."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, models.WordLevel) or backend.normalizer is not None:
        return False
    if tokenizer.unk_token_id is None or backend.pre_tokenizer is None:  # its settings are missing
        return False
    state, expected = (json.loads(splits.__getstate__()) for splits in (backend.pre_tokenizer, EACH_CHARACTER))
    return state == expected and all(token.special for token in backend.get_added_tokens_decoder().values())


def is_byte_level(tokenizer: Any) -> bool:
    """Return whether a tokenizer is GPT-2's in all but its vocabulary: byte-level BPE, split by GPT-2's expression."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, models.BPE) or backend.normalizer is not None:
        return False
    state = json.loads(backend.pre_tokenizer.__getstate__()) if backend.pre_tokenizer else {}
    is_split = state.get("type") == "ByteLevel" and state["use_regex"] and not state["add_prefix_space"]
    return bool(is_split) and {*pre_tokenizers.ByteLevel.alphabet()} <= backend.get_vocab().keys()


def code_points(text: str) -> NDArray[np.uint32]:
    """Return the Unicode code points of a text, shape (characters,)."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def byte_level(
    vocabulary: Mapping[str, int], merges: Sequence[Merge], where: Path, end: str = END_OF_TEXT
) -> PreTrainedTokenizerFast:
    """Return GPT-2's tokenizer with the given vocabulary, in which `end` separates documents.

    InputError at `where` if the vocabulary is unusable.
    """
    missing = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - vocabulary.keys())
    if missing:
        message = f"not a byte-level vocabulary: {len(missing)} of the 256 byte symbols are missing"
        raise InputError(message, where=str(where), fix="use GPT-2's own files")
    try:
        model = models.BPE(dict(vocabulary), list(merges))
    except Exception as error:  # tokenizers raises no narrower type
        message = f"vocabulary and merges do not match: {error}"
        raise InputError(message, where=str(where), fix="fetch both again") from error
    return _with_end_of_text(Tokenizer(model), end)


def _accepts_byte_level(spec: str) -> bool:
    """Return whether `spec` is bpe:N; UsageError for an invalid N."""
    if not spec.startswith("bpe:"):
        return False
    size = spec.removeprefix("bpe:")
    if not re.fullmatch(r"[0-9]{1,8}", size) or int(size) < SMALLEST:
        message = f"{spec!r}: N must be a whole number of at least {SMALLEST} (256 bytes and {END_OF_TEXT})"
        raise UsageError(message, where="--tokenizer", fix="write bpe:4096, for instance")
    return True


def _train_byte_level(spec: str, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of at most N entries for bpe:N: first the 256 bytes, last END_OF_TEXT.

    Pairs that occur only once are not merged, so a short text yields fewer than N entries.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _SPLIT
    trainer = trainers.BpeTrainer(
        vocab_size=int(spec.removeprefix("bpe:")) - 1,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _with_end_of_text(tokenizer)


def _with_end_of_text(tokenizer: Tokenizer, end: str = END_OF_TEXT) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    tokenizer.pre_tokenizer = _SPLIT
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([end])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end)


@dataclass(frozen=True)
class Kind:
    """A kind of tokenizer: its --tokenizer spec, how to train one, and how to encode faster than its backend can."""

    spec: str
    accepts: Callable[[str], bool]  # UsageError for an invalid spec of this kind
    train: Callable[[str, Iterable[str]], PreTrainedTokenizerBase]
    fast_encoder: Callable[[Any, Any], Encode | None] = lambda tokenizer, dtype: None  # None for other kinds


KINDS = (
    Kind("char", lambda spec: spec == "char", _train_char, _char_encoder),
    Kind("bpe:N", _accepts_byte_level, _train_byte_level),
)


def needs_training(spec: str) -> bool:
    """Return whether `spec` is one of KINDS, to be trained on the training text; UsageError for an invalid N."""
    return any(kind.accepts(spec) for kind in KINDS)


def named_directory(spec: str) -> Path:
    """Return the directory that a spec names; InputError if it is none."""
    directory = Path(spec).expanduser()
    if not directory.is_dir():
        what = "a file, not a tokenizer's directory" if directory.exists() else "no such tokenizer directory"
        named = f"hf:{spec}" if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", spec) else "hf:NAME"
        fix = f"write {', '.join(kind.spec for kind in KINDS)}, a directory, or {named} for the hub"
        raise InputError(what, where=spec, fix=did_you_mean(directory) or fix)
    return directory


def check_tokenizer(spec: str) -> None:
    """Raise the errors of a spec that can be found without transformers."""
    if not needs_training(spec) and not spec.startswith("hf:"):
        find_tokenizer(named_directory(spec), spec)


def train_tokenizer(spec: str, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """Train a tokenizer of a spec that `needs_training`; the same texts in the same order give the same tokenizer."""
    kind = next(kind for kind in KINDS if kind.accepts(spec))
    return kind.train(spec, texts)


def training_note(spec: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return a line for the log if the text yielded fewer entries than `spec` asked for."""
    entries = spec.partition(":")[2]
    if not entries or len(tokenizer) >= int(entries):
        return None
    return f"{spec}: the text yields only {len(tokenizer):,} entries (no remaining pair of pieces occurs twice)"


def fast_encoder(tokenizer: Any, dtype: Any) -> Encode | None:
    """Return a function that encodes a text faster than the tokenizer's backend, None if there is none."""
    for kind in KINDS:
        if encode := kind.fast_encoder(tokenizer, dtype):
            return encode
    return None
