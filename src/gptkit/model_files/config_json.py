"""config.json files as they lie there: the keys that are known, and the sizes they tell where nothing is in doubt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from gptkit.model_files.sizes import MARKER_FIELDS, Activation, Format, Sizes, check_head, check_rates, check_sizes

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# What says nothing about the model: its type is known by then, who loads weights chooses their dtype, and a preset
# names where its sizes come from.
SILENT_KEYS = frozenset({"model_type", "dtype", "source"})
GELUS: dict[str, Activation] = {"gelu_new": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "gelu": "gelu"}
GPT2_SWITCHES = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
OPENAI_GPT_GELU = "gelu"  # which is the tanh form there

Test = Callable[[Any], bool]


def model_type(raw: Mapping[str, Any]) -> str:
    """Return whose config.json this is; one that does not say is ours."""
    return str(raw.get("model_type", "gptkit"))


def foreign_ids(raw: Mapping[str, Any], vocab_size: Any) -> Iterator[tuple[str, int]]:
    """Yield the special tokens (key, id) that lie outside the vocabulary."""
    for key in SPECIAL_IDS:
        ids = raw.get(key)
        for one in ids if isinstance(ids, list) else [ids]:
            if isinstance(one, int) and isinstance(vocab_size, int) and not 0 <= one < vocab_size:
                yield key, one


# --- sizes ---


def _is(*types: type) -> Test:
    return lambda value: type(value) in types


def _is_list_of(kind: type) -> Test:
    return lambda value: type(value) is list and all(type(one) is kind for one in value)


def _is_dict_of(kind: type) -> Test:
    return lambda value: type(value) is dict and all(type(one) is kind for one in value.values())


def _either(*tests: Test) -> Test:
    return lambda value: any(test(value) for test in tests)


_INTEGER, _NUMBER, _BOOL, _NOTHING, _TEXT = _is(int), _is(int, float), _is(bool), _is(type(None)), _is(str)

# What each key of ours may hold.
KNOWN: dict[str, Test] = {
    **dict.fromkeys(("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"), _INTEGER),
    **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop", "classifier_dropout"), _NUMBER),
    **dict.fromkeys(("layer_norm_epsilon", "initializer_range"), _NUMBER),
    **dict.fromkeys(("pre_norm", "tie_word_embeddings", "use_cache"), _BOOL),
    **dict.fromkeys(("n_inner", "bos_token_id", "pad_token_id", *MARKER_FIELDS), _either(_INTEGER, _NOTHING)),
    "position_initializer_range": _either(_NUMBER, _NOTHING),
    "activation_function": lambda value: value in get_args(Activation),
    "eos_token_id": _either(_INTEGER, _is_list_of(int), _NOTHING),
    "task": _either(_TEXT, _NOTHING),
    "format": lambda value: value is None or value in get_args(Format),
}
# What transformers adds when it saves; its other switches would change what a forward pass returns.
HOUSE: dict[str, Test] = {
    "architectures": _either(_is_list_of(str), _NOTHING),
    "transformers_version": _either(_TEXT, _NOTHING),
    "id2label": lambda value: _is_dict_of(str)(value) and all(key.isdecimal() for key in value),
    "label2id": _is_dict_of(int),
    "problem_type": _NOTHING,
}
# What keys of the same name may hold in the other two.
SHARED = {key: test for key, test in KNOWN.items() if key != "activation_function"}
SHARED |= dict.fromkeys(("layer_norm_epsilon", "initializer_range"), _is(float))
_NEEDED = {"vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "layer_norm_epsilon"}
_DEFAULTS = {**{field.name: field.default for field in dataclasses.fields(Sizes)}, "n_inner": None}


def sizes_of(raw: Mapping[str, Any]) -> Sizes | None:
    """Return the sizes that the content of a config.json tells, ours or that of transformers' gpt2 or openai-gpt.

    None where anything is unknown or odd: `parse_config` reads more, and says what is wrong.
    """
    readers = {"gptkit": _own_sizes, "gpt2": _gpt2_sizes, "openai-gpt": _openai_gpt_sizes}
    reader = readers.get(model_type(raw))
    try:
        return reader(raw) if reader else None
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def _own_sizes(raw: Mapping[str, Any]) -> Sizes | None:
    tests = KNOWN | HOUSE
    if not all(key in SILENT_KEYS or (key in tests and tests[key](value)) for key, value in raw.items()):
        return None
    values = _DEFAULTS | dict(raw)
    if any(foreign_ids(values, values["vocab_size"])):
        return None
    check_head(values)
    return _checked_sizes(values)


def _gpt2_sizes(raw: Mapping[str, Any]) -> Sizes | None:
    if any(raw.get(switch, needed) is not needed for switch, needed in GPT2_SWITCHES.items()):
        return None
    values = {**_foreign_values(raw), "n_inner": raw.get("n_inner"), "pre_norm": True}
    return _checked_sizes({**values, "activation_function": GELUS[raw["activation_function"]]})


def _openai_gpt_sizes(raw: Mapping[str, Any]) -> Sizes | None:
    if raw["afn"] != OPENAI_GPT_GELU:
        return None
    values = {**_foreign_values(raw), "n_inner": None, "pre_norm": False}
    return _checked_sizes({**values, "activation_function": GELUS["gelu_new"]})


def _foreign_values(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return what both sides call by the same name; what is left out has their defaults, which are not known here."""
    if "auto_map" in raw or "quantization_config" in raw or not raw.keys() >= _NEEDED:
        raise ValueError("not a plain model")
    shared = {name: value for name, value in raw.items() if name in SHARED}
    if not all(SHARED[name](value) for name, value in shared.items()):
        raise ValueError("a value of another type")
    return shared


def _checked_sizes(values: Mapping[str, Any]) -> Sizes:
    check_sizes(values)
    check_rates(values)
    found = {name: values.get(name, default) for name, default in _DEFAULTS.items()}
    found["n_inner"] = found["n_inner"] or 4 * found["n_embd"]
    return Sizes(**found)
