"""Byte-level BPE, GPT-2's tokenizer: any text, no unknown tokens; from OpenAI's files, or trained to any size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from gptkit.errors import InputError
from gptkit.text.tokenizers.any_tokenizer import END_OF_TEXT
from gptkit.text.tokenizers.vocabulary_files import Merge

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


def train_byte_level(entries: int, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of `entries` entries, of which the bytes are the first 256 and END_OF_TEXT the last.

    A pair of pieces that occurs only once is not merged, so little text yields fewer entries.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _SPLIT
    trainer = trainers.BpeTrainer(
        vocab_size=entries - 1,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _with_end_of_text(tokenizer)


def _with_end_of_text(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.pre_tokenizer = _SPLIT
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT)
