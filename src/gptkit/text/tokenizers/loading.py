"""Load the tokenizer that --tokenizer names, or train one and cache it; fingerprint a tokenizer."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import Regex, decoders
from transformers import BertTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from gptkit.errors import GptkitError, InputError, UsageError
from gptkit.system import hub
from gptkit.system.cache import cache_path, cached_json
from gptkit.system.reading import read_json
from gptkit.text.tokenizers.any_tokenizer import END_OF_TEXT, NEWLINE_TOKEN, id_out_of_range
from gptkit.text.tokenizers.files import (
    BESIDE,
    LAYOUTS,
    checked_merges,
    checked_vocabulary,
    find_tokenizer,
    read_merges,
    read_vocabulary,
    saved_config,
    tokenizer_files,
)
from gptkit.text.tokenizers.gpt1 import GPT1Tokenizer
from gptkit.text.tokenizers.gpt1_encoding import library_versions
from gptkit.text.tokenizers.kinds import byte_level, named_directory, needs_training, train_tokenizer

if TYPE_CHECKING:
    from gptkit.text.corpora import TextPart

FORMAT = 1  # of cached tokenizers
BERT_TOKENS = {
    "eos_token": "[SEP]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\x{3000}-\x{303f}\x{ff00}-\x{ffef}\x{2014}\x{2026}]"


def load_tokenizer(spec: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer that `spec` names: a directory (of a run, a model or a tokenizer) or hf:NAME."""
    if needs_training(spec):
        fix = f"pass a directory with tokenizer files, or train one: gptkit tokenizer train --tokenizer {spec}"
        raise UsageError(f"{spec!r} must be trained on text first", where="--tokenizer", fix=fix)
    if spec == "hf:":
        fix = "write hf:openai-community/gpt2, for instance"
        raise InputError("no tokenizer named in 'hf:'", where="--tokenizer", fix=fix)
    if spec.startswith("hf:"):
        names = [name for names in (*LAYOUTS, BESIDE) for name in names]
        return tokenizer_in(hub.snapshot(spec, names, what="the tokenizer"), shown=spec)
    return tokenizer_in(named_directory(spec), shown=spec)


def tokenizer_in(directory: Path, *, shown: str | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a directory (of a run, a model or a tokenizer), in any of LAYOUTS; no code is run.

    InputError if there is none, or it is unusable; `shown` is what the user called the directory, if not by its path.
    """
    directory, layout = find_tokenizer(directory, shown)
    tokenizer_files(directory)  # raises for files on which transformers would hang
    saved = saved_config(directory)
    tokenizer: PreTrainedTokenizerBase
    if layout == LAYOUTS[0]:
        tokenizer = _from_tokenizer_json(directory)
    elif layout == LAYOUTS[2]:
        tokenizer = _as_separated(_from_pretrained(BertTokenizer, directory))
    else:
        vocabulary_file, merges_file = (directory / name for name in layout)
        vocabulary = read_vocabulary(vocabulary_file)
        if NEWLINE_TOKEN not in vocabulary:
            tokenizer = byte_level(vocabulary, read_merges(merges_file), vocabulary_file)
        elif saved.get("tokenizer_class") == GPT1Tokenizer.__name__:
            tokenizer = _from_pretrained(GPT1Tokenizer, directory)
        else:
            tokenizer = GPT1Tokenizer(vocabulary, read_merges(merges_file))
    if beyond := id_out_of_range(tokenizer):
        message = f"{beyond[0][:60]!r} has id {beyond[1]:,}, but there are only {len(tokenizer):,} entries"
        raise InputError(message, where=str(directory), fix="fetch or save its files again")
    return tokenizer


def _from_tokenizer_json(directory: Path) -> PreTrainedTokenizerBase:
    path = directory / "tokenizer.json"
    description = read_json(path)
    model = description.get("model") if isinstance(description, dict) else None
    if not isinstance(model, dict):
        raise InputError("not a tokenizer file: it has no model", where=str(path), fix="fetch or save it again")
    entries = model.get("vocab")
    if not isinstance(entries, dict) or NEWLINE_TOKEN not in entries:
        tokenizer = _as_separated(_from_pretrained(PreTrainedTokenizerFast, directory))
        if tokenizer.eos_token is None and END_OF_TEXT in tokenizer.get_vocab():  # as in GPT-2's files on the hub
            tokenizer.add_special_tokens({"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT})
        unknown, number = model.get("unk_token"), model.get("unk_id")
        if isinstance(entries, list) and number is not None:  # Unigram's
            unknown = entries[number][0]
        if tokenizer.unk_token is None and unknown in tokenizer.get_vocab():
            tokenizer.add_special_tokens({"unk_token": unknown})
        return tokenizer
    vocabulary = checked_vocabulary(entries, path)
    tokenizer = GPT1Tokenizer(vocabulary, checked_merges(model.get("merges"), path))
    try:
        added = sorted((int(token["id"]), str(token["content"])) for token in description.get("added_tokens") or ())
    except (TypeError, KeyError, ValueError):
        raise InputError("damaged added_tokens", where=str(path), fix="fetch or save it again") from None
    tokenizer.add_tokens([token for id, token in added if id >= len(vocabulary)], special_tokens=True)
    return tokenizer


def _as_separated(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Give BERT's tokenizer an end token if it names none, [SEP], and have it decode Chinese and Japanese unspaced."""
    backend, vocabulary = tokenizer.backend_tokenizer, tokenizer.get_vocab()
    is_by_words = isinstance(backend.model, tokenizers.models.WordPiece | tokenizers.models.WordLevel)
    if is_by_words and backend.model.token_to_id(unknown := backend.model.unk_token) is None:
        message = f"the vocabulary has no {unknown}, the token for text that it does not know"
        fix = 'name its own in tokenizer_config.json, such as "unk_token": "<unk>"'
        raise InputError(message, where=tokenizer.name_or_path, fix=fix)
    if not isinstance(backend.model, tokenizers.models.WordPiece) or END_OF_TEXT in vocabulary:
        return tokenizer
    unnamed = {role: token for role, token in BERT_TOKENS.items() if getattr(tokenizer, role) is None}
    tokenizer.add_special_tokens({role: token for role, token in unnamed.items() if token in vocabulary})
    if isinstance(backend.decoder, decoders.WordPiece):
        unspaced = decoders.Replace(Regex(f"(?<={_UNSPACED}) | (?={_UNSPACED})"), "")
        backend.decoder = decoders.Sequence([backend.decoder, decoders.Fuse(), unspaced])
    return tokenizer


def _from_pretrained(kind: type[PreTrainedTokenizerBase], directory: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(str(directory))
        return tokenizer
    except GptkitError:
        raise
    except Exception as error:  # tokenizers raises bare Exception, transformers whatever its parsing runs into
        reason = (str(error) or type(error).__name__).splitlines()[0]
        fix = "fetch or save its files again"
        raise InputError(f"the tokenizer cannot be read: {reason}", where=str(directory), fix=fix) from error


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the sha256 of all that determines the ids: vocabulary, rules, and GPT-1's ftfy and spaCy versions."""
    if isinstance(tokenizer, GPT1Tokenizer):
        content = {
            "gpt1": tokenizer.vocabulary,
            "merges": tokenizer.merges,
            "added": tokenizer.added_tokens_encoder,
            "libraries": library_versions(),
        }
    else:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        content = {key: value for key, value in content.items() if key not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def cached_tokenizer(spec: str, text: TextPart) -> tuple[PreTrainedTokenizerBase, bool]:
    """Return the tokenizer of a spec such as char, trained on a text, and whether it came from the cache.

    The cache key is made of text, spec and library version. Errors are those of `cached_file`.
    """
    was_cached = True

    def train() -> list[Any]:
        nonlocal was_cached
        was_cached = False
        trained = train_tokenizer(spec, (piece.text for piece in text.pieces()))
        return [trained.backend_tokenizer.to_str(), trained.special_tokens_map]

    path = cache_path("tokenizers", ".bin", FORMAT, text.key, spec, tokenizers.__version__)
    backend, special_tokens = cached_json(path, train)
    tokenizer = tokenizers.Tokenizer.from_str(backend)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special_tokens), was_cached
