"""Byte-level BPE, GPT-2's tokenizer: any text, no unknown tokens; from OpenAI's files, or trained to any size."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gptkit.errors import InputError, UsageError
from gptkit.text.tokenizers.any_tokenizer import END_OF_TEXT
from gptkit.text.tokenizers.files import Merge

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SMALLEST = 257  # the bytes and END_OF_TEXT

_SPLIT = pre_tokenizers.ByteLevel(add_prefix_space=False)  # with GPT-2's regular expression


def byte_level(vocabulary: Mapping[str, int], merges: Sequence[Merge], where: Path) -> PreTrainedTokenizerFast:
    """Return GPT-2's tokenizer with a given vocabulary; `where` stands in the InputError of an unusable one."""
    missing = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - vocabulary.keys())
    if missing:
        message = f"not a byte-level vocabulary: {len(missing)} of the 256 byte symbols are missing"
        raise InputError(message, where=str(where), fix="use GPT-2's own files")
    try:
        model = models.BPE(dict(vocabulary), list(merges))
    except Exception as error:  # tokenizers raises no other kind
        message = f"vocabulary and merges do not fit: {error}"
        raise InputError(message, where=str(where), fix="fetch both again") from error
    return _with_end_of_text(Tokenizer(model))


def accepts(spec: str) -> bool:
    """Tell whether `spec` is bpe:N; UsageError if N does not do."""
    if not spec.startswith("bpe:"):
        return False
    size = spec.removeprefix("bpe:")
    if not re.fullmatch(r"[0-9]{1,8}", size) or int(size) < SMALLEST:
        message = f"{spec!r}: N must be a whole number of at least {SMALLEST} (256 bytes and {END_OF_TEXT})"
        raise UsageError(message, where="--tokenizer", fix="write for instance bpe:4096")
    return True


def train(spec: str, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return the byte-level BPE of the N entries of bpe:N; the bytes are the first 256 of them, END_OF_TEXT the last.

    A pair of pieces that occurs only once is not merged, so little text yields fewer entries.
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


def _with_end_of_text(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast  # late: it takes seconds, and encoding does without it

    tokenizer.pre_tokenizer = _SPLIT
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)
