"""`gptkit finetune --recipe ulmfit`: the language model is tuned on the task's texts first, then the classifier."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_finetune import Place, call, per_seed, stop_at, text, write_rte

from gptkit.finetune import command, lm_tuning
from gptkit.finetune.options import FinetuneOptions
from gptkit.finetune.study import ULMFIT_VARIANTS
from gptkit.model.loading import load_model, weights_sha256
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.options import fields_of
from gptkit.pretrain import command as pretrain_command
from gptkit.recipes import read_recipe, recipes_of

SIZES = {"model_type": "gptkit", "n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 2}
# Quick, with a few steps of each kind.
CHANGED: dict[str, Any] = {"recipe": "ulmfit", "epochs": 2, "optimizer": None, "learning_rate": None}


def pretrain_tiny(root: Path) -> None:
    """Pre-train a tiny GPT in root/pretrained."""
    (root / "text.txt").write_text("".join(text(i, "pretraining") + ".\n" for i in range(300)))
    (root / "shape.json").write_text(json.dumps(SIZES))
    words = ["pretrain", root / "text.txt", "--model", root / "shape.json", "--tokenizer", "char", "--steps", 3]
    words += ["--tokens-per-step", 128, "--sequence-length", 32, "--compile", "off", "--out", root / "pretrained"]
    code, _, log = call(words)
    assert code == 0, log


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("ulmfit")
    pretrain_tiny(root)
    (root / "pretrained" / "model").rename(root / "model")
    write_rte(root / "data")
    return Place(root)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Any:
    """Take small steps, so that there are several, and draw no loss.png, which takes as long as all the rest."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lm_tuning, "TOKENS_PER_STEP", 400)
        for each in (command, pretrain_command):
            patched.setattr(each, "draw_loss", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def two_seeds(place: Place) -> dict[str, Any]:
    return place.run("two-seeds", seeds=2, **CHANGED)


def test_the_language_model_is_a_run_as_any_other(place: Place, two_seeds: dict[str, Any]) -> None:
    run = place.root / "two-seeds"
    lines = (run / "lm-texts.jsonl").read_text(encoding="utf-8-sig").splitlines()
    assert [json.loads(line)["text"] for line in lines] == list(
        dict.fromkeys(text(i, split) for i in range(26) for split in ("train", "train2"))
    )
    tuned = json.loads((run / "lm" / "result.json").read_text())
    characters = sum(len(json.loads(line)["text"]) + 1 for line in lines)  # with the separator
    config = yaml.safe_load((run / "lm" / "config.yaml").read_text())
    assert config.items() >= {"seed": 0, "schedule": "slanted", "learning_rate": 4e-4, "beta1": 0.7}.items()
    assert tuned["steps"] == round(3 * 0.9 * characters / (400 // 96 * 96))
    assert two_seeds["lm"] == {name: tuned.get(name) for name in lm_tuning.FIGURES}
    assert weights_sha256(run / "lm" / "model") != weights_sha256(place.root / "model")
    shown, evaluated, generated = (["runs", "show"], ["eval", "--device", "cpu", "--model"], ["generate", "--model"])
    for words in (shown, evaluated, generated):
        code, _, log = call([*words, run / "lm"])
        assert code == 0, log


def test_the_classifier_has_the_recipes_parts(place: Place, two_seeds: dict[str, Any]) -> None:
    recipe = read_recipe(recipes_of("finetune")["ulmfit"], FinetuneOptions)
    for name in ("lm_epochs", "schedule", "layer_decay", "unfreeze", "head", "lm_coef"):
        assert two_seeds[name] == recipe[name], name
    assert recipe["layer_decay"] == pytest.approx(1 / 2.6, rel=1e-5)
    model = load_model(place.root / "two-seeds", head=GPTDoubleHeadsModel)
    assert (model.config.head, model.score.weight.shape) == ("concat", (2, 3 * 32))
    card = (place.root / "two-seeds" / "model" / "README.md").read_text()
    assert "of fine-tuning: lm_epochs 3, schedule slanted, layer_decay 0.384615, unfreeze gradual, head concat." in card
    words = ["--model", place.root / "two-seeds", "--device", "cpu", "--json"]
    code, printed, log = call(["eval", "--task", "rte", "--data", place.root / "data", *words])
    assert code == 0, log
    figure = json.loads(printed)["results"]["rte/fine-tuned"]["metrics"]["accuracy"]["value"]
    assert figure == max(one["metrics"]["accuracy"] for one in two_seeds["per_seed"])
    code, _, log = call(["predict", "a red cat", "a cat", *words])
    assert code == 0, log


def test_it_resumes_while_the_language_model_is_tuned_and_tunes_it_once(
    place: Place, two_seeds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stop_at(5, signal.SIGTERM, patched)
        code, _, log = call(place.words("stopped", seeds=2, **CHANGED))
    assert code == 143
    assert log.splitlines()[-1].endswith(f"gptkit finetune --resume {place.root / 'stopped'}")
    assert not (place.root / "stopped" / "seed-0").exists()
    code, printed, log = call(["finetune", "--resume", place.root / "stopped", "--json"])
    assert code == 0, log
    assert per_seed(json.loads(printed)) == per_seed(two_seeds)
    assert place.weights("stopped/lm") == place.weights("two-seeds/lm")
    assert json.loads((place.root / "stopped" / "lm" / "result.json").read_text())["resumed_from"] == 5
    assert place.weights("stopped") == place.weights("two-seeds")

    before = (place.root / "stopped" / "lm" / "result.json").read_bytes()
    shutil.rmtree(place.root / "stopped" / "seed-1")
    (place.root / "stopped" / "result.json").unlink()
    assert per_seed(place.run("stopped", seeds=2, **CHANGED)) == per_seed(two_seeds)
    assert (place.root / "stopped" / "lm" / "result.json").read_bytes() == before


def test_the_ablation_has_a_row_for_each_part(place: Place) -> None:
    recipe = read_recipe(recipes_of("finetune")["ulmfit"], FinetuneOptions)
    defaults = {name: field.default for name, field in fields_of(FinetuneOptions).items()}
    for name, changes in ULMFIT_VARIANTS.items():
        assert all(recipe[key] != value == defaults[key] for key, value in changes.items()), name
        assert len(changes) == (name != "full")
    code, table, log = call(place.words("study", study="ablation", **{**CHANGED, "epochs": 1}))
    assert code == 0, log
    assert "paper" not in table
    assert "full  " in table
    assert "full minus no discriminative rates" in table
    result = json.loads((place.root / "study" / "result.json").read_text())
    variants = result["variants"]
    assert [one["lm"] is None for one in variants.values()] == [name == "no_lm_tuning" for name in variants]
    assert variants["no_concat"]["head"] == "extract"
    assert variants["no_slanted_triangle"]["schedule"] == "openai-linear"
    assert len(list((place.root / "study").glob("**/lm"))) == 1
    code, _, log = call(["runs", "rm", place.root / "study", "--yes"])
    assert code == 0, log
    assert not (place.root / "study").exists()
