"""LoRA adapters are merged as PEFT merges them, for our models and for transformers', or refused in one line."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

from gptkit.console import Console
from gptkit.convert import adapter, command
from gptkit.convert.check import check
from gptkit.convert.options import ConvertOptions
from gptkit.errors import InputError
from gptkit.finetune.inputs import add_task_head, head_config
from gptkit.model.configuration_gpt import GPTConfig, quiet_transformers
from gptkit.model.loading import State, load_model, save_model
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM, GPTPreTrainedModel

peft = pytest.importorskip("peft")

SIZES: dict[str, Any] = {"vocab_size": 50, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
IDS = torch.randint(50, (2, 16), generator=torch.Generator().manual_seed(0))
ATTENTION = ["c_attn"]


def base_model(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "transformers":
        return GPT2LMHeadModel(GPT2Config(**SIZES, bos_token_id=0, eos_token_id=0, initializer_range=0.2)).eval()
    if kind == "openai-gpt":
        return OpenAIGPTLMHeadModel(OpenAIGPTConfig(**SIZES)).eval()
    return GPTForCausalLM(GPTConfig(**SIZES, initializer_range=0.2)).eval()


def tuned(model: Any, folder: Path, **settings: Any) -> Any:
    """Save a model, train an adapter on it, as far as random numbers are training, and save that; return PEFT's."""
    if isinstance(model, GPTPreTrainedModel):
        save_model(model, folder / "base")
    else:
        with quiet_transformers():
            model.save_pretrained(folder / "base")
    chosen = {"target_modules": ATTENTION, "r": 4, "lora_alpha": 3, "task_type": "CAUSAL_LM", **settings}
    chosen.setdefault("fan_in_fan_out", not isinstance(model, GPTPreTrainedModel))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks for what transformers calls otherwise today
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**chosen))
        with torch.no_grad():
            for name, parameter in wrapped.named_parameters():
                if parameter.requires_grad:
                    number = sum(name.encode())
                    parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) / 4
        wrapped.save_pretrained(folder / "adapter")
    return wrapped.eval()


def converted(folder: Path, **options: Any) -> dict[str, Any]:
    given = ConvertOptions(
        source=str(folder / "base"), destination=folder / "merged", adapter=folder / "adapter", **options
    )
    check(given)
    return command.run(given, Console(stdout=io.StringIO(), stderr=io.StringIO(), environment={}))


@pytest.mark.parametrize("kind", ["gptkit", "transformers"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True, "target_modules": ["c_attn", "c_fc", "c_proj"]},
        {
            "target_modules": ["attn.c_proj", "c_fc"],
            "rank_pattern": {"h.1.mlp.c_fc": 2},
            "alpha_pattern": {"^transformer.h.0.attn.c_proj": 7, "c_fc": 5},
        },
        {"bias": "all", "target_modules": "all-linear"},
        {"target_modules": r".*\.[01]\.(attn|mlp)\.c_\w+"},
        {"bias": "lora_only", "layers_to_transform": [1]},
        {"modules_to_save": ["ln_f", "ln_2"], "exclude_modules": ["h.0.attn.c_attn"]},
        {"modules_to_save": ["ln_f", "ln_2"], "bias": "all"},
    ],
    ids=["plain", "rslora", "patterns", "bias", "expression", "layers", "norms", "norms and bias"],
)
def test_a_merged_model_computes_what_peft_does(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    theirs = tuned(base_model(kind), tmp_path, **settings)
    expected = theirs(input_ids=IDS).logits
    result = converted(tmp_path)
    assert result["peer"].startswith("peft ")
    model = load_model(tmp_path / "merged")
    torch.testing.assert_close(model(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)
    unmerged = load_model(tmp_path / "base")(input_ids=IDS).logits
    assert (unmerged - expected).abs().max() > 0.1


def test_an_adapter_of_gpt1_is_merged_too(tmp_path: Path) -> None:
    expected = tuned(base_model("openai-gpt"), tmp_path)(input_ids=IDS).logits
    converted(tmp_path)
    torch.testing.assert_close(load_model(tmp_path / "merged")(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)


def test_it_can_be_exported_and_peft_need_not_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = tuned(base_model("gptkit"), tmp_path)(input_ids=IDS).logits
    monkeypatch.setitem(sys.modules, "peft", None)
    assert converted(tmp_path, to="hf")["peer"].startswith("transformers ")
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(theirs(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)


def test_weights_in_bfloat16_are_rounded_once(tmp_path: Path) -> None:
    wrapped = tuned(base_model("gptkit").bfloat16(), tmp_path)
    converted(tmp_path)
    merged = load_model(tmp_path / "merged", dtype=torch.bfloat16).transformer.h[1].attn.c_attn.weight
    layer = wrapped.base_model.model.transformer.h[1].attn.c_attn
    exact = layer.base_layer.weight.float() + layer.get_delta_weight("default").float()
    torch.testing.assert_close(merged, exact.bfloat16(), rtol=0, atol=0)


def test_a_classifier_keeps_the_head_that_was_trained_with_it(tmp_path: Path) -> None:
    head = head_config(task="rte", format="entailment", labels=("yes", "no"), markers=(50, 51, 52))
    model = add_task_head(base_model("gptkit"), head, seed=0).eval()
    wrapped = tuned(model, tmp_path, task_type=None, modules_to_save=["score"])
    extract = torch.full((2, 1), 15)
    expected = wrapped.base_model.model(IDS[:, None], extract).logits
    assert converted(tmp_path)["peer"].startswith("peft ")
    merged = load_model(tmp_path / "merged", head=GPTDoubleHeadsModel)
    torch.testing.assert_close(merged(IDS[:, None], extract).logits, expected, atol=1e-5, rtol=1e-5)
    shutil.rmtree(tmp_path / "merged")
    assert converted(tmp_path, to="hf")["max_logit_difference"] < 1e-5  # which drops a head for two texts


def test_what_changes_no_weight_may_be_anything(tmp_path: Path) -> None:
    expected = tuned(base_model("gptkit"), tmp_path)(input_ids=IDS).logits
    setting(task_type="ANYTHING", lora_dropout="much", layers_pattern=[], target_modules=5)(tmp_path)
    assert converted(tmp_path)["peer"].startswith("peft ")
    torch.testing.assert_close(load_model(tmp_path / "merged")(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)


def test_the_head_is_merged_where_it_has_weights_of_its_own(tmp_path: Path) -> None:
    untied = GPTForCausalLM(GPTConfig(**SIZES, initializer_range=0.2, tie_word_embeddings=False)).eval()
    expected = tuned(untied, tmp_path, target_modules=["c_attn", "lm_head"])(input_ids=IDS).logits
    assert converted(tmp_path)["peer"].startswith("peft ")
    torch.testing.assert_close(load_model(tmp_path / "merged")(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)


def test_an_older_adapter_is_a_pickle(tmp_path: Path) -> None:
    tuned(base_model("gptkit"), tmp_path)
    weights = tmp_path / "adapter" / adapter.WEIGHTS
    torch.save(load_file(weights), tmp_path / "adapter" / adapter.PICKLED)
    weights.unlink()
    assert converted(tmp_path)["max_logit_difference"] < 1e-4


# --- refusals ---


def setting(**changes: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / "adapter" / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return make


def tensors(change: Callable[[State], State]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / "adapter" / "adapter_model.safetensors"
        save_file(change(load_file(path)), path)

    return make


def another_base(**sizes: Any) -> Callable[[Path], None]:
    return lambda folder: save_model(GPTForCausalLM(GPTConfig(**{**SIZES, **sizes})), folder / "base")


FIRST = "base_model.model.transformer.h.0.attn.c_attn.lora_"


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


def pickled(folder: Path) -> None:
    (folder / "adapter" / "adapter_model.safetensors").unlink()
    torch.save({FIRST + "A.weight": Harmful()}, folder / "adapter" / "adapter_model.bin")


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no adapter": (lambda folder: (folder / "adapter" / "adapter_config.json").unlink(), r"file not found.*PEFT saved"),
    "no weights": (lambda folder: (folder / "adapter" / "adapter_model.safetensors").unlink(), "file not found"),
    "another kind": (setting(peft_type="IA3"), "peft_type is 'IA3', not 'LORA'.*merge_and_unload"),
    "no kind": (setting(peft_type=None), "peft_type is 'None'"),
    "dora": (setting(use_dora=True), "use_dora = True is not LoRA as published"),
    "from the future": (setting(use_quantum=[1]), "use_quantum = .* is not LoRA as published"),
    "pissa": (setting(init_lora_weights="pissa"), "'pissa' changed its base too"),
    "code": (setting(megatron_config={"a": 1}, megatron_core="os"), "megatron_config"),
    "a search without end": (setting(alpha_pattern={"(a|a)*b": 1}), "alpha_pattern is not a number for each"),
    "a list": (setting(rank_pattern=[1]), "rank_pattern is not"),
    "half a rank": (setting(r=4.5), "r is 4.5, not a positive number"),
    "a bias of its own": (setting(bias="some"), "bias is 'some'"),
    "a number of modules": (setting(modules_to_save=5), "modules_to_save is not a list of names"),
    "no rank": (setting(r=None), "r is None, not a positive number"),
    "no scale": (setting(lora_alpha="16"), "lora_alpha is 16, not a positive number"),
    "a rank of 0": (setting(rank_pattern={"c_attn": 0}), "rank_pattern of c_attn is 0"),
    "another rank": (setting(r=8), "c_attn has rank 4, but adapter_config.json says 8"),
    "a deeper base": (
        another_base(n_layer=3),
        r"nothing for transformer\.h\.2\.attn\.c_attn.*SRC: somebody/base",
    ),
    "a shallower base": (another_base(n_layer=1), r"no matrix transformer\.h\.1\.attn\.c_attn.*base model as SRC"),
    "a wider base": (another_base(n_embd=32), r"is \(96, 32\) in this model, but \(48, 16\) in the adapter"),
    "half a pair": (
        tensors(lambda state: {name: state[name] for name in state if name != FIRST + "B.weight"}),
        r"transformer\.h\.0\.attn\.c_attn has only lora_A",
    ),
    "a layer is missing": (
        tensors(lambda state: {name: state[name] for name in state if not name.startswith(FIRST)}),
        r"nothing for transformer\.h\.0\.attn\.c_attn",
    ),
    "another target is missing": (
        setting(target_modules=["c_attn", "c_fc"]),
        r"nothing for transformer\.h\.0\.mlp\.c_fc",
    ),
    "factors that do not fit": (
        tensors(lambda state: {**state, FIRST + "A.weight": torch.ones(3, 16)}),
        r"do not fit: A \(3, 16\), B \(48, 4\)",
    ),
    "integers": (
        tensors(lambda state: {name: tensor.to(torch.int32) for name, tensor in state.items()}),
        "do not fit",
    ),
    "not finite": (
        tensors(lambda state: {**state, FIRST + "A.weight": torch.full((4, 16), torch.nan)}),
        r"with the adapter, transformer\.h\.0\.attn\.c_attn is not finite",
    ),
    "embeddings": (
        tensors(lambda state: {**state, "base_model.model.transformer.wpe.lora_embedding_A": torch.ones(4, 16)}),
        "lora_embedding_A is not a factor of a matrix",
    ),
    "the tied head": (
        tensors(
            lambda state: {
                **state,
                "base_model.model.lm_head.lora_A.weight": torch.ones(4, 16),
                "base_model.model.lm_head.lora_B.weight": torch.ones(50, 4),
            }
        ),
        "lm_head shares its weight with the embeddings",
    ),
    "embeddings as a whole": (
        tensors(lambda state: {**state, "base_model.model.transformer.wte.weight": torch.ones(50, 16)}),
        r"transformer\.wte\.weight was trained as a whole",
    ),
    "a pickle with code": (pickled, r"asks for posix\.system"),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    tuned(base_model("gptkit"), folder)
    setting(base_model_name_or_path="somebody/base")(folder)
    return folder


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_merged_is_refused(
    name: str, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, message = REFUSED[name]
    folder = shutil.copytree(pair, tmp_path / "pair")
    monkeypatch.chdir(folder)
    make(folder)
    with pytest.raises(InputError, match=message) as caught:
        converted(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    assert sorted(path.name for path in folder.iterdir()) == ["adapter", "base"]
