"""`gptkit finetune --features`: a linear head on the states of a frozen model, which stays as it is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_finetune import Place, call, per_seed, pretrained, stop_at

from gpt_toy import FAMILIES, shaken, toy
from gptkit.convert.command import load_source
from gptkit.finetune import command
from gptkit.finetune.inputs import add_task_head, freeze, head_config
from gptkit.inspect.inspection import inspect_model
from gptkit.model.loading import load_model, save_model
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.tasks import frozen_states as states_module
from gptkit.tasks.encoding import EncodedExamples, Markers
from gptkit.tasks.frozen_states import fingerprint_of, frozen_states, layers_of
from gptkit.tasks.head_outputs import evaluate_head

BOTH = pytest.mark.parametrize("features", ["last", "mix"])
families = pytest.mark.parametrize("pre_norm", FAMILIES)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def frozen_toy(features: str, pre_norm: bool = True, format: str = "similarity") -> GPTDoubleHeadsModel:
    head = head_config(task="mrpc", format=format, labels=("a", "b"), markers=Markers(58, 59, 60))
    model = add_task_head(toy(pre_norm, bos_token_id=7), {**head, "features": features}, seed=0)
    freeze(model)
    return model


def examples(count: int = 6, each: int = 2) -> EncodedExamples:
    draw = np.random.default_rng(0)
    lengths = draw.integers(3, 24, count * each)
    ids = draw.integers(0, 61, lengths.sum()).astype(np.int32)
    return EncodedExamples(ids, np.cumsum([0, *lengths]), each, draw.integers(0, 2, count), {})


def with_states(model: GPTDoubleHeadsModel, encoded: EncodedExamples) -> EncodedExamples:
    sites = layers_of(model.language_model())
    sites = sites if model.mix is not None else sites[-1:]
    found = frozen_states(model.language_model(), encoded, sites, fingerprint="toy")
    return EncodedExamples(
        encoded.ids, encoded.offsets, encoded.sequences_per_example, encoded.targets, {}, states=tuple(found.values())
    )


# --- the model ---


@families
def test_the_layers_are_those_that_the_model_records(pre_norm: bool) -> None:
    model, encoded = toy(pre_norm), examples()
    found = frozen_states(model, encoded, layers_of(model), fingerprint="toy")
    for row, part in enumerate(np.split(encoded.ids, encoded.offsets[1:-1])):
        output = model.transformer(torch.tensor(part.tolist())[None], output_hidden_states=True)
        assert len(output.hidden_states) == len(found) == 4
        for own, states in zip(output.hidden_states, found.values(), strict=True):
            assert states[row] == pytest.approx(own[0, -1].detach().numpy(), rel=1e-4, abs=1e-5)


@BOTH
@families
def test_the_head_reads_the_same_from_cached_states_and_from_the_model(features: str, pre_norm: bool) -> None:
    model, encoded = frozen_toy(features, pre_norm), examples()
    if model.mix is not None:
        shaken(model.mix)
    whole, cached = evaluate_head(model, encoded), evaluate_head(model, with_states(model, encoded))
    np.testing.assert_allclose(cached.logits, whole.logits, rtol=1e-4, atol=1e-5)
    assert cached.loss == pytest.approx(whole.loss, rel=1e-5)


def test_a_mix_is_what_its_equation_says() -> None:
    model = frozen_toy("mix")
    assert model.mix is not None
    assert model.mix.learnt() == {"weights": [0.25] * 4, "gamma": 1.0}
    shaken(model.mix)
    layers = [torch.randn(2, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    exponents = model.mix.scalars.exp()
    expected = model.mix.gamma * sum(e / exponents.sum() * layer for e, layer in zip(exponents, layers, strict=True))
    torch.testing.assert_close(model.mix(layers), expected)


@BOTH
def test_a_mix_comes_back_bit_by_bit_and_its_language_model_without_it(features: str, tmp_path: Path) -> None:
    model = frozen_toy(features)
    shaken(model.score)
    if model.mix is not None:
        shaken(model.mix)
    save_model(model, tmp_path)
    for found in (
        load_model(tmp_path, head=GPTDoubleHeadsModel),
        GPTDoubleHeadsModel.from_pretrained(tmp_path),
        load_source(tmp_path),
    ):
        assert found.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert json.loads((tmp_path / "config.json").read_text())["features"] == features
    inside = load_model(tmp_path)
    assert type(inside) is GPTForCausalLM
    assert inside.config.features == "none"


def test_only_the_head_and_the_mix_are_trained_and_markers_are_separators() -> None:
    model = frozen_toy("mix")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"score.weight", "score.bias", "mix.scalars", "mix.gamma"}
    table = model.transformer.wte.weight
    assert all(torch.equal(table[marker], table[7]) for marker in (58, 59, 60))
    assert all(torch.equal(table[row], toy(bos_token_id=7).transformer.wte.weight[row]) for row in range(58))


def test_the_fingerprint_follows_the_markers_and_the_layers_kept() -> None:
    assert fingerprint_of(frozen_toy("mix").language_model()) == fingerprint_of(frozen_toy("last").language_model())
    other = frozen_toy("mix")
    with torch.no_grad():
        other.transformer.wte.weight[60] += 1
    assert fingerprint_of(other.language_model()) != fingerprint_of(frozen_toy("mix").language_model())


def test_a_mix_moves_to_the_layer_that_knows_the_label() -> None:
    model = frozen_toy("mix", format="classification")
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 256)
    layers = [draw.normal(size=(256, 32)).astype(np.float32) for _ in range(4)]
    layers[1][:, 5] = 3 * (2 * labels - 1)
    encoded = EncodedExamples(np.zeros(512, np.int32), np.arange(0, 513, 2), 1, labels, {}, states=layers)
    batch = {name: torch.from_numpy(array) for name, array in encoded.select(np.arange(256)).items()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        model(**batch, loss_only=True).loss.backward()
        optimizer.step()
    assert model.mix is not None
    weights = model.mix.weights.detach()
    assert int(weights.argmax()) == 1
    assert float(weights[1]) > 2 * float(weights[[0, 2, 3]].max())


# --- runs ---


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return pretrained(tmp_path_factory.mktemp("features"))


def run(place: Place, out: str, features: str = "mix", **options: object) -> dict[str, Any]:
    return place.run(out, features=features, dropout=None, learning_rate=None, head_learning_rate=0.01, **options)


@pytest.fixture(scope="module")
def mixed(place: Place) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(command, "draw_loss", lambda *_, **__: None)
        return run(place, "mixed", predict="test")


def test_a_run_trains_the_head_alone_and_keeps_every_other_bit(place: Place, mixed: dict[str, Any]) -> None:
    before, after = load_model(place.root / "model"), load_model(place.root / "mixed", head=GPTDoubleHeadsModel)
    markers = [after.config.start_token_id, after.config.delimiter_token_id, after.config.extract_token_id]
    for name, tensor in before.transformer.state_dict().items():
        ours = after.transformer.state_dict()[name]
        if name == "wte.weight":
            assert torch.equal(ours[markers], tensor[[after.config.bos_token_id] * 3])
            ours, tensor = ours[: min(markers)], tensor[: min(markers)]
        assert torch.equal(ours, tensor), name
    assert (mixed["features"], mixed["lm_coef"]) == ("mix", 0.0)
    assert mixed["mix"] == after.mix.learnt()
    assert sum(mixed["mix"]["weights"]) == pytest.approx(1)
    assert mixed["mix"]["weights"] != pytest.approx([1 / 3] * 3, abs=1e-4)
    config = (place.root / "mixed" / "config.yaml").read_text()
    assert "lm_coef: 0.0" in config
    assert "\nlearning_rate: 0.01" in config


def test_predictions_are_those_of_the_head_on_the_cached_states(place: Place, mixed: dict[str, Any]) -> None:
    code, _, log = call(["finetune", "--resume", place.root / "mixed", "--predict", "dev"])
    assert code == 0, log
    rows = [json.loads(line) for line in (place.root / "mixed" / "predictions-dev.jsonl").read_text().splitlines()]
    accuracy = sum(row["prediction"] == row["label"] for row in rows) / len(rows)
    assert mixed["metrics"] == {"accuracy": accuracy}
    nll = -np.mean([np.log(row["probabilities"][row["labels"].index(row["label"])]) for row in rows])
    assert mixed["val_loss"] == pytest.approx(nll, rel=1e-4)
    code, printed, log = call(["eval", "--model", place.root / "mixed", "--data", place.root / "data", "--json"])
    assert code == 0, log
    assert str(accuracy) in printed


def test_the_states_are_computed_once_for_all_seeds_and_anew_for_another_model(
    place: Place, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    computed: list[int] = []
    forward = states_module._forward
    monkeypatch.setattr(states_module, "_forward", lambda *a, **k: (computed.append(1), forward(*a, **k))[1])
    monkeypatch.setattr(command, "draw_loss", lambda *_, **__: None)
    result = run(place, "seeds", features="last", seeds=2, epochs=1)
    once = len(computed)
    assert once
    assert len(result["per_seed"]) == 2
    run(place, "again", features="last", epochs=1, seed=5)
    assert len(computed) == once
    run(place, "fresh", features="last", epochs=1, transfer_layers="none")
    assert len(computed) == 2 * once
    shutil.copytree(place.root / "data", place.root / "other")
    lines = (place.root / "other" / "train.tsv").read_text().splitlines()
    (place.root / "other" / "train.tsv").write_text("\n".join(lines[:-1]) + "\n")
    run(place, "fewer", features="last", epochs=1, data=place.root / "other")
    assert len(computed) > 2 * once


def test_the_weights_are_shown_as_bars_and_kept_for_every_seed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "draw_loss", lambda *_, **__: None)
    words = place.words("bars", features="mix", dropout=None, seeds=2, epochs=1)
    code, table, log = call(words)
    assert code == 0, log
    assert "only a linear head is trained, at --head-learning-rate 0.01" in log
    for name in ("embeddings", "layer 0", "layer 1"):
        [line] = [line for line in table.splitlines() if line.strip().startswith(name)]
        assert "█" in line
    result = json.loads((place.root / "bars" / "result.json").read_text())
    assert all(len(seed["mix"]["weights"]) == 3 for seed in result["per_seed"])
    assert "mix" not in result


def test_a_stopped_run_resumes_to_the_same_bits(
    place: Place, mixed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "draw_loss", lambda *_, **__: None)
    with monkeypatch.context() as patched:
        stop_at(5, signal.SIGTERM, patched)
        code, _, log = call(place.words("stopped", features="mix", dropout=None, learning_rate=None))
    assert code == 143, log
    code, printed, log = call(["finetune", "--resume", place.root / "stopped", "--json"])
    assert code == 0, log
    assert per_seed(json.loads(printed)) == per_seed(mixed)
    assert place.weights("stopped") == place.weights("mixed")
    assert place.rows("stopped") == place.rows("mixed")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"lm_coef": 0.25}, "lm_coef 0.25 does not fit"),
        ({"layer_decay": 0.38}, "layer_decay 0.38 does not fit"),
        ({"unfreeze": "gradual"}, "unfreeze gradual does not fit"),
        ({"dropout": 0.2}, "dropout 0.2 does not fit"),
        ({"study": "ablation"}, "study ablation does not fit"),
    ],
)
def test_what_a_frozen_model_has_no_use_for_is_refused(place: Place, options: dict[str, Any], says: str) -> None:
    error = place.refused(**{"features": "mix", "dropout": None, **options})
    assert says in error
    assert "(--features mix)" in error


@pytest.mark.slow
def test_two_processes_see_the_losses_of_one(place: Place, mixed: dict[str, Any]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    words = place.words("pair", features="mix", dropout=None, learning_rate=None)
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "gptkit", *words],
            env=os.environ | common | {"OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in processes:
        errors = process.communicate(timeout=100)[1]
        assert process.returncode == 0, errors
    for ours, theirs in zip(place.rows("mixed"), place.rows("pair"), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)
    pair = json.loads((place.root / "pair" / "result.json").read_text())
    assert pair["metrics"] == mixed["metrics"]
    assert pair["mix"]["weights"] == pytest.approx(mixed["mix"]["weights"], rel=1e-5)


def test_other_formats_take_the_head_on_the_last_layer_and_refuse_a_mix(
    place: Place, mixed: dict[str, Any], tmp_path: Path
) -> None:
    for target in ("hf", "onnx", "gguf"):
        code, _, log = call(["convert", place.root / "mixed", tmp_path / target, "--to", target])
        assert code == 2, log
        assert "its head reads a mix of all layers, which only gptkit computes" in log.splitlines()[-1]
    code, _, log = call(["convert", place.root / "mixed", tmp_path / "own", "--dtype", "bf16"])
    assert code == 0, log
    assert load_model(tmp_path / "own", head=GPTDoubleHeadsModel).mix is not None


def test_inspect_reads_the_head_and_knocks_out_its_parts_through_the_mix(place: Place, mixed: dict[str, Any]) -> None:
    model = load_model(place.root / "mixed", head=GPTDoubleHeadsModel)
    found = inspect_model(place.root / "mixed" / "model", ["a red cat", "the old house"], knock_out=True)
    assert found.fine_tuned is not None
    assert found.answer is not None
    assert found.answer_knock_out is not None
    logits = torch.from_numpy(found.fine_tuned.logits)
    np.testing.assert_allclose(logits.softmax(-1), found.answer.probabilities, rtol=1e-4)
    np.testing.assert_allclose(found.answer_knock_out.whole, -np.log(found.answer.probabilities.max()), rtol=1e-4)
    ids = torch.from_numpy(found.fine_tuned.ids)[None]
    extract = torch.tensor([[ids.shape[-1] - 1]])
    for layer, block in enumerate(model.transformer.h):
        hook = block.mlp.register_forward_hook(lambda module, inputs, output: output * 0)
        with torch.no_grad():
            without = model(ids, extract).logits[0]
        hook.remove()
        loss = -without.log_softmax(-1)[int(logits.argmax())]
        assert found.answer_knock_out.losses[layer, -1] == pytest.approx(float(loss), rel=1e-4)
