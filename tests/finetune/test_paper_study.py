"""`gptkit finetune --study paper`: GPT beside its ablations, an LSTM, frozen features and a masked model."""

from __future__ import annotations

import json
import shlex
import shutil
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from test_finetune import Place, call, write_rte
from test_ulmfit import pretrain_tiny

from gptkit.finetune import command
from gptkit.finetune.peers import lstm_of_size
from gptkit.finetune.study import PAPER_VARIANTS
from gptkit.model.loading import config_from
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.model.modeling_lstm import LSTMForCausalLM
from gptkit.pretrain import command as pretrain_command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a pretrain run and a task beside it; no loss.png is drawn, which takes as long as all the rest."""
    root = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patched:
        for each in (command, pretrain_command):
            patched.setattr(each, "draw_loss", lambda *_, **__: None)
        pretrain_tiny(root)
        write_rte(root / "data")
        yield Place(root)


@pytest.fixture(scope="module")
def study(place: Place) -> dict[str, Any]:
    return place.run("study", model=place.root / "pretrained", study="paper", seeds=2, epochs=1, save_every=None)


def test_every_system_is_in_the_table_beside_full(place: Place, study: dict[str, Any]) -> None:
    variants = study["variants"]
    assert list(variants) == ["full", "no_aux", "no_pretraining", "lstm", "frozen_mix", "masked"]
    for name, gain in study["full_minus"].items():
        pairs = zip(variants["full"]["per_seed"], variants[name]["per_seed"], strict=True)
        differences = [ours["metrics"]["accuracy"] - theirs["metrics"]["accuracy"] for ours, theirs in pairs]
        assert gain["mean"] == pytest.approx(np.mean(differences))
        assert gain["interval"][0] <= gain["mean"] <= gain["interval"][1]
    types = {
        name: json.loads((place.root / "study" / name / "seed-0" / "model" / "config.json").read_text())["model_type"]
        for name in variants
    }
    ordinary = dict.fromkeys(PAPER_VARIANTS, "gptkit")
    assert types == {**ordinary, "lstm": "gptkit-lstm", "masked": "gptkit-masked"}
    assert "mix" in variants["frozen_mix"]["per_seed"][0]
    assert (place.root / "study" / "study.png").stat().st_size > 10_000


def test_the_others_are_pretrained_as_the_model_was(place: Place, study: dict[str, Any]) -> None:
    own = yaml.safe_load((place.root / "pretrained" / "config.yaml").read_text())
    result = json.loads((place.root / "pretrained" / "result.json").read_text())
    for kind in ("lstm", "masked"):
        run = place.root / "pretrained" / "peers" / kind
        theirs = yaml.safe_load((run / "config.yaml").read_text())
        assert {name for name in own if own[name] != theirs[name]} <= {"model", "tokenizer", "objective"}
        theirs = json.loads((run / "result.json").read_text())
        for name in ("tokens", "data_sha256", "split_sha256"):
            assert theirs[name] == result[name], name


@pytest.mark.parametrize("name", ["lstm", "frozen_mix", "masked"])
def test_a_row_is_repeated_by_its_command(name: str, place: Place, study: dict[str, Any]) -> None:
    *words, _ = shlex.split(study["variants"][name]["rerun"])
    code, printed, log = call([*words[1:], place.root / f"again-{name}", "--json"])
    assert code == 0, log
    again, first = json.loads(printed)["per_seed"][0], study["variants"][name]["per_seed"][0]
    assert [again[key] for key in ("metrics", "val_loss", "train_loss")] == [
        first[key] for key in ("metrics", "val_loss", "train_loss")
    ]


def test_a_model_whose_run_is_unknown_is_refused_before_anything_is_trained(place: Place) -> None:
    shutil.copytree(place.root / "pretrained" / "model", place.root / "moved")
    message = place.refused(model=place.root / "moved", study="paper")
    assert "--study ablation, which needs no other models" in message


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model": "pretrained/checkpoints/step-000003"}, "these are not the weights at its end"),
        ({"model": "tuned"}, "these are not the weights at its end"),
        ({"model": "continued"}, "continued from"),
        ({"model": "pretrained/peers/lstm"}, "compares other models with a GPT, and this is an LSTM"),
        ({"model": "pretrained/peers/masked"}, "compares other models with a GPT, and this is a masked GPT-2"),
        ({"recipe": "ulmfit"}, "(lm_epochs) - leave it out"),
        ({"compile": "on"}, "(--compile on) - leave it out"),
    ],
)
def test_a_study_that_would_compare_unlike_things_is_refused(
    changed: dict[str, Any], says: str, place: Place, study: dict[str, Any]
) -> None:
    if changed.get("model") == "continued":
        words = ["pretrain", place.root / "text.txt", "--model", place.root / "pretrained", "--steps", 1]
        words += ["--tokens-per-step", 128, "--sequence-length", 32, "--compile", "off"]
        code, _, log = call([*words, "--out", place.root / "continued"])
        assert code == 0, log
    if changed.get("model") == "tuned":
        place.run("tuned", model=place.root / "pretrained", epochs=1)
    model = place.root / changed.get("model", "pretrained")
    assert says in place.refused(**{**changed, "model": model, "study": "paper"})


def test_the_newest_pretrain_run_is_never_one_of_the_others(
    place: Place, study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.root / "elsewhere" / "runs").mkdir(parents=True)
    shutil.copytree(place.root / "pretrained", place.root / "elsewhere" / "runs" / "own")
    shutil.copytree(place.root / "pretrained" / "peers" / "masked", place.root / "elsewhere" / "runs" / "masked")
    monkeypatch.chdir(place.root / "elsewhere")
    code, _, log = call(["generate", "a", "--max-new-tokens", 1, "--device", "cpu"])
    assert code == 0, log
    assert "model runs/own" in log
    code, _, log = call(["eval", "--limit", 1, "--device", "cpu"])
    assert code == 0, log
    assert "model runs/own" in log
    code, _, log = call(["runs", "rm", "own", "--yes"])
    assert code == 0, log


@pytest.mark.parametrize(("preset", "entries"), [("laptop", 4096), ("gpt1", 40478), ("tiny", 300)])
def test_the_lstm_has_the_parameters_of_the_gpt(preset: str, entries: int) -> None:
    with torch.device("meta"):
        gpt = GPTForCausalLM(config_from(preset, vocab_size=entries))
        lstm = LSTMForCausalLM(lstm_of_size(gpt.config, gpt.num_parameters()))
    assert lstm.num_parameters() == pytest.approx(gpt.num_parameters(), rel=0.02)


def test_another_study_takes_them_as_they_are_unless_they_read_another_text(
    place: Place, study: dict[str, Any]
) -> None:
    peers = place.root / "pretrained" / "peers"
    result = peers / "lstm" / "result.json"
    before = result.read_text()
    code, _, log = call(place.words("second", model=place.root / "pretrained", study="paper", seeds=2, epochs=1))
    assert code == 0, log
    assert "pre-training the" not in log
    result.write_text(before.replace('"tokens": 384', '"tokens": 256'))
    code, _, log = call(place.words("third", model=place.root / "pretrained", study="paper", seeds=2, epochs=1))
    result.write_text(before)
    assert code == 2
    assert "it was not trained on the same text and tokens as" in log
    (peers / "lstm").rename(place.root / "lstm")
    shutil.copytree(peers / "masked", peers / "lstm")
    code, _, log = call(place.words("third", model=place.root / "pretrained", study="paper", seeds=2, epochs=1))
    shutil.rmtree(peers / "lstm")
    (place.root / "lstm").rename(peers / "lstm")
    assert code == 2
    assert "it is not the lstm model that goes with" in log


def test_a_study_is_removed_with_all_that_it_made(place: Place, study: dict[str, Any]) -> None:
    copied = place.root / "removed"
    shutil.copytree(place.root / "study", copied)
    code, _, log = call(["runs", "rm", copied, "--yes"])
    assert code == 0, log
    assert not copied.exists()
