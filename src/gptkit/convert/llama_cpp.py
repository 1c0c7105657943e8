"""llama.cpp, as the wheel `xllamacpp` ships it, called through its C interface (llama.h).

The wheel's own classes return neither the logits of a whole prompt nor the ids of a text.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_uint32, c_void_p
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptkit.errors import GptkitError
from gptkit.system.limits import usable_processors

AUTO, F32, F16 = -1, 0, 1  # llama.h's enumerators: to be chosen by the model; types of the KV cache
DISABLED = 0
_SPARE = 64  # words beyond the fields below: a struct passed by value may be longer than its reader expects


class _ContextParams(ctypes.Structure):
    """llama_context_params up to the last field that is set here."""

    _fields_ = (
        *((name, c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq", "n_outputs_max")),
        ("n_outputs_max_per_seq", c_uint32),
        *((name, c_int32) for name in ("n_threads", "n_threads_batch", "ctx_type", "rope_scaling_type")),
        *((name, c_int32) for name in ("pooling_type", "attention_type", "flash_attn_type")),
        *(("rope", c_float * 6), ("yarn_orig_ctx", c_uint32), ("defrag_thold", c_float), ("cb_eval", c_void_p * 2)),
        *(("type_k", c_int32), ("type_v", c_int32), ("rest", c_int32 * _SPARE)),
    )


class _ModelParams(ctypes.Structure):
    _fields_ = (("words", c_int32 * _SPARE),)


class _Batch(ctypes.Structure):
    """llama_batch; where pos and the sequences are null, tokens continue sequence 0."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", c_void_p),
        ("n_seq_id", c_void_p),
        ("seq_id", c_void_p),
        ("logits", POINTER(c_int8)),
    )


_SIGNATURES: dict[str, tuple[Any, ...]] = {  # result, then arguments
    "llama_backend_init": (None,),
    "llama_log_set": (None, c_void_p, c_void_p),
    "llama_model_default_params": (_ModelParams,),
    "llama_model_load_from_file": (c_void_p, c_char_p, _ModelParams),
    "llama_model_free": (None, c_void_p),
    "llama_model_get_vocab": (c_void_p, c_void_p),
    "llama_model_n_ctx_train": (c_int32, c_void_p),
    "llama_vocab_n_tokens": (c_int32, c_void_p),
    "llama_tokenize": (c_int32, c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool),
    "llama_context_default_params": (_ContextParams,),
    "llama_init_from_model": (c_void_p, c_void_p, _ContextParams),
    "llama_free": (None, c_void_p),
    "llama_get_memory": (c_void_p, c_void_p),
    "llama_memory_clear": (None, c_void_p, c_bool),
    "llama_decode": (c_int32, c_void_p, _Batch),
    "llama_get_logits": (POINTER(c_float), c_void_p),
}


# Called with each line of llama.cpp's log; it must live as long as the library.
_SILENCE = ctypes.CFUNCTYPE(None, c_int32, c_char_p, c_void_p)(lambda level, line, data: None)


class LlamaCpp:
    """A GGUF file as llama.cpp computes it, with keys and values in f32; a `Peer` of the proof.

    ImportError if xllamacpp is not installed, or exports another interface than the one known here; GptkitError if
    llama.cpp refuses the file.
    """

    name = "llama.cpp (xllamacpp)"

    def __init__(self, file: Path) -> None:
        self._library = _library()
        self.version = version("xllamacpp")
        self._model = self._library.llama_model_load_from_file(
            os.fsencode(file), self._library.llama_model_default_params()
        )
        if not self._model:
            raise GptkitError("llama.cpp cannot load the file", where=str(file))
        self._vocabulary = self._library.llama_model_get_vocab(self._model)
        self._vocab_size: int = self._library.llama_vocab_n_tokens(self._vocabulary)
        self._context = self._library.llama_init_from_model(self._model, self._parameters())
        if not self._context:
            raise GptkitError("llama.cpp cannot run the model", where=str(file))

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.llama_free(self._context)
        if getattr(self, "_model", None):
            self._library.llama_model_free(self._model)

    def _parameters(self) -> _ContextParams:
        parameters: _ContextParams = self._library.llama_context_default_params()
        length = self._library.llama_model_n_ctx_train(self._model)
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = length
        parameters.n_outputs_max = parameters.n_outputs_max_per_seq = length
        parameters.n_threads = parameters.n_threads_batch = usable_processors()
        parameters.flash_attn_type, parameters.type_k, parameters.type_v = DISABLED, F32, F32
        return parameters

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, in which special tokens are ordinary text."""
        data = text.encode()
        ids = (c_int32 * (len(data) + 1))()  # a token has at least a byte
        count = self._library.llama_tokenize(self._vocabulary, data, len(data), ids, len(ids), False, False)
        return list(ids[:count])

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the logits (position, vocab) of one window of ids."""
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)
        return self._continued(ids)

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """Return the `count` most likely ids after `ids`, one by one from the cache."""
        found = [int(self.logits(ids)[-1].argmax())]
        while len(found) < count:
            found.append(int(self._continued(found[-1:])[-1].argmax()))
        return found

    def _continued(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the logits of ids that follow those in the cache."""
        count = len(ids)
        batch = _Batch(n_tokens=count, token=(c_int32 * count)(*ids), logits=(c_int8 * count)(*[1] * count))
        if error := self._library.llama_decode(self._context, batch):
            raise GptkitError(f"llama.cpp returned error {error} for {count} tokens", where=self.name)
        found = self._library.llama_get_logits(self._context)
        return np.ctypeslib.as_array(found, (count, self._vocab_size)).copy()


def _library() -> Any:
    """Return the wheel's shared library with typed functions; ImportError if it is not as expected."""
    import xllamacpp

    other = ImportError(f"an xllamacpp with the llama.h of 2026.10 (this is {version('xllamacpp')})")
    files = sorted(Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))
    library: Any = ctypes.CDLL(str(files[0])) if files else None
    for name, (result, *arguments) in _SIGNATURES.items():
        function = getattr(library, name, None)
        if function is None:
            raise other
        function.restype, function.argtypes = result, arguments
    library.llama_log_set(ctypes.cast(_SILENCE, c_void_p), None)
    library.llama_backend_init()
    default = library.llama_context_default_params()
    automatic = (default.rope_scaling_type, default.pooling_type, default.attention_type, default.flash_attn_type)
    if {*automatic} != {AUTO} or {default.type_k, default.type_v} != {F16} or default.n_seq_max != 1:
        raise other  # llama_context_params has other fields
    return library
