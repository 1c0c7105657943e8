"""The kinds of tokenizers that can be trained. A kind is a file beside this one and a row here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gptkit.errors import UsageError
from gptkit.text.tokenizers import byte_level, char

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

Encode = Callable[[str], "NDArray[Any]"]


@dataclass(frozen=True)
class Kind:
    """What --tokenizer says to train one, how it is trained, and what encodes faster than its backend, if anything."""

    spec: str
    accepts: Callable[[str], bool]  # UsageError for a spec of this kind that is wrong
    train: Callable[[str, Iterable[str]], PreTrainedTokenizerBase]
    fast_encoder: Callable[[Any, Any], Encode | None] = lambda tokenizer, dtype: None  # None for another kind's


KINDS = (
    Kind("char", char.accepts, char.train, char.fast_encoder),
    Kind("bpe:N", byte_level.accepts, byte_level.train),
)
SPECS = " or ".join(kind.spec for kind in KINDS)


def needs_training(spec: str) -> bool:
    """Tell whether `spec` is one of SPECS, which are made from the training text; UsageError if its N does not do."""
    return any(kind.accepts(spec) for kind in KINDS)


def train_tokenizer(spec: str, texts: Iterable[str]) -> PreTrainedTokenizerBase:
    """Return the tokenizer that a spec makes of `texts`; the same texts in the same order give the same one."""
    for kind in KINDS:
        if kind.accepts(spec):
            return kind.train(spec, texts)
    raise UsageError(f"{spec!r} is not trained", where="--tokenizer", fix=f"write {SPECS}, such as bpe:4096")


def training_note(spec: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return a line for the log when the text yielded fewer entries than `spec` asked for."""
    entries = spec.partition(":")[2]
    if not entries or len(tokenizer) >= int(entries):
        return None
    return f"{spec}: the text yields {len(tokenizer):,} entries only (no pair of pieces is left that occurs twice)"


def fast_encoder(tokenizer: Any, dtype: Any) -> Encode | None:
    """Return what encodes a text faster than the tokenizer's backend, None where nothing does."""
    for kind in KINDS:
        if encode := kind.fast_encoder(tokenizer, dtype):
            return encode
    return None
