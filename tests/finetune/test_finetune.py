"""`gptkit finetune` as a user runs it: what it leaves, that it repeats and resumes exactly, and how it refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset

from gptkit.cli.main import main
from gptkit.finetune import command
from gptkit.model.loading import load_model
from gptkit.model.modeling_double_heads import GPTDoubleHeadsModel
from gptkit.tasks.encoding import Markers, encode_examples
from gptkit.tasks.own import carried_task
from gptkit.tasks.reading import load_examples
from gptkit.tasks.table import TASKS
from gptkit.text.tokenizers.loading import tokenizer_in
from gptkit.training import run as training_run
from timings import is_time

KEYS = {
    *("run_dir", "model_dir", "task", "metrics", "per_seed", "lm_coef", "n_train", "n_eval", "train_seconds"),
    *("elapsed_seconds", "model", "seed", "data_sha256", "version", "finished_at"),
}
WORDS = [
    "a",
    "red",
    "cat",
    "saw",
    "the",
    "old",
    "green",
    "house",
    "by",
    "my",
    "river",
    "and",
    "sang",
    "it",
    "one",
    "more",
    "song",
]
STEPS = 9  # 3 epochs of 26 // 8
CHILD = """
import os, signal, sys
from gptkit.cli.main import main
from gptkit.training import run
step = run.RunReporter._step
def dying(self, event, progress):
    step(self, event, progress)
    if self.directory.path.name == "seed-1" and event.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
run.RunReporter._step = dying
main(sys.argv[1:])
"""


def text(number: int, salt: str) -> str:
    """Return one to nine words, so that no batch is without padding."""
    chance = random.Random(f"{salt} {number}")
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 9)))


def write_rte(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split, count in {"train": 26, "dev": 10, "test": 6}.items():
        lines = ["index\tsentence1\tsentence2" + "\tlabel" * (split != "test")]
        for i in range(count):
            label = "entailment" if i % 2 else "not_entailment"
            lines.append(f"{i}\t{text(i, split)}\t{text(i, split + '2')}" + f"\t{label}" * (split != "test"))
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")


def write_lines(folder: Path, rows: Callable[[int], dict[str, Any]]) -> Path:
    folder.mkdir()
    for split, count in {"train": 9, "dev": 5}.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(rows(i)) + "\n" for i in range(count)))
    return folder


def call(words: Sequence[object]) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


@dataclasses.dataclass(frozen=True)
class Place:
    """A folder with a pre-trained model and a task's files, where runs are made."""

    root: Path

    def words(self, out: str, **options: object) -> list[str]:
        values = {
            "task": "rte",
            "data": self.root / "data",
            "model": self.root / "model",
            "out": self.root / out,
            "batch_size": 8,
            "micro_batch": 3,
            "learning_rate": 0.003,
            "dropout": 0.1,
            "log_every": 1,
            "save_every": 2,
            "precision": "fp32",
            "device": "cpu",
            "compile": "off",
        } | options
        flags = [(f"--{name.replace('_', '-')}", str(value)) for name, value in values.items() if value is not None]
        return ["finetune", *(word for flag in flags for word in flag)]

    def run(self, out: str, **options: object) -> dict[str, Any]:
        code, printed, log = call([*self.words(out, **options), "--json"])
        assert code == 0, log
        result: dict[str, Any] = json.loads(printed)
        return result

    def refused(self, out: str = "refused", **options: object) -> str:
        """Return the one line of an error, of which nothing is left."""
        before = sorted(self.root.rglob("*"))
        code, printed, log = call(self.words(out, **options))
        errors = [line for line in log.splitlines() if line.startswith("error:")]
        assert (code, printed, len(errors)) == (2, "", 1), log
        assert "Traceback" not in log
        assert " - " in errors[0]
        assert sorted(self.root.rglob("*")) == before
        return errors[0]

    def rows(self, run: str) -> list[dict[str, Any]]:
        """Return metrics.jsonl without its times."""
        return [
            {name: value for name, value in json.loads(line).items() if not is_time(name)}
            for line in (self.root / run / "metrics.jsonl").read_text().splitlines()
        ]

    def weights(self, run: str) -> bytes:
        return (self.root / run / "model" / "model.safetensors").read_bytes()


def pretrained(root: Path) -> Place:
    """Return a folder with a model after three steps, and small files of RTE."""
    (root / "text.txt").write_text("".join(text(i, "pretraining") + ".\n" for i in range(300)))
    shape = {"model_type": "gptkit", "n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 2}
    (root / "shape.json").write_text(json.dumps(shape))
    words = ["pretrain", root / "text.txt", "--model", root / "shape.json", "--tokenizer", "char", "--steps", 3]
    words += ["--tokens-per-step", 128, "--sequence-length", 32, "--compile", "off", "--out", root / "pretrained"]
    code, _, log = call(words)
    assert code == 0, log
    (root / "pretrained" / "model").rename(root / "model")
    write_rte(root / "data")
    return Place(root)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return pretrained(tmp_path_factory.mktemp("finetune"))


@pytest.fixture(scope="module")
def single(place: Place) -> dict[str, Any]:
    """A run with GPT-1's optimizer, and predictions of its test split."""
    return place.run("single", predict="test")


@pytest.fixture(scope="module", autouse=True)
def no_curves(single: dict[str, Any]) -> Iterator[None]:
    """Draw no loss.png after the first: it takes as long as all the rest of a run."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(command, "draw_loss", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def two_seeds(place: Place) -> dict[str, Any]:
    return place.run("two-seeds", seeds=2)


def per_seed(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in one.items() if not is_time(key) and key not in ("model_dir", "resumed_from")}
        for one in result["per_seed"]
    ]


def test_a_run_leaves_what_the_contract_says(place: Place, single: dict[str, Any]) -> None:
    run = place.root / "single"
    assert single.keys() >= KEYS
    assert json.loads((run / "result.json").read_text()) == single
    assert {path.name for path in run.iterdir()} == {
        *("config.yaml", "metrics.jsonl", "loss.png", "run.lock", "result.json"),
        *("start", "checkpoints", "snapshots", "model"),
        *("predictions-test.jsonl", "RTE.tsv"),
    }
    assert {path.suffix for path in (run / "model").iterdir()} <= {".json", ".safetensors", ".md", ".txt"}
    assert single["data_sha256"] in (run / "model" / "README.md").read_text()
    assert (single["task"], single["n_train"], single["n_eval"], single["steps"]) == ("rte", 26, 10, STEPS)
    assert single["lm_coef"] == 0.5
    [one] = single["per_seed"]
    assert (one["seed"], one["metrics"]) == (0, single["metrics"])
    rows = place.rows("single")
    assert [row["step"] for row in rows] == [*range(1, STEPS + 1)]
    assert [row["step"] for row in rows if "accuracy" in row] == [3, 6, 9]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["data"], config["model"]) == (str(place.root / "data"), str(place.root / "model"))
    assert not config.keys() & {"out", "json", "resume"}


def test_the_model_is_the_best_epochs_and_scores_what_the_run_says(place: Place, single: dict[str, Any]) -> None:
    evaluated = [row for row in place.rows("single") if "accuracy" in row]
    best = max(evaluated, key=lambda row: row["accuracy"])  # the first of equals
    [one] = single["per_seed"]
    assert one["best_epoch"] == best["step"] // 3
    model = load_model(place.root / "single", head=GPTDoubleHeadsModel)
    config = model.config
    assert (config.task, config.format, config.id2label) == (
        *("rte", "entailment"),
        {0: "entailment", 1: "not_entailment"},
    )
    examples = load_examples(TASKS["rte"], "dev", place.root / "data").examples
    tokenizer = tokenizer_in(place.root / "single" / "model")
    assert config.bos_token_id == config.eos_token_id == tokenizer.eos_token_id
    markers = Markers(config.start_token_id, config.delimiter_token_id, config.extract_token_id)
    correct, nll = 0, 0.0
    for example in examples:  # one at a time: no padding, no order
        encoded = encode_examples(tokenizer, TASKS["rte"], [example], markers, config.n_positions)
        with torch.no_grad():
            extract = torch.tensor([[len(encoded.ids) - 1]])
            logits = model(input_ids=torch.tensor(encoded.ids)[None, None].long(), extract=extract).logits[0]
        correct += int(logits.argmax() == example.label)
        nll -= float(logits.double().log_softmax(-1)[example.label])
    assert single["metrics"] == {"accuracy": correct / len(examples)}
    assert one["val_loss"] == pytest.approx(nll / len(examples), rel=1e-6)


def test_predictions_of_a_finished_run_and_the_file_for_glue(place: Place, single: dict[str, Any]) -> None:
    run = place.root / "single"
    rows = [json.loads(line) for line in (run / "predictions-test.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(i) for i in range(6)]
    assert all(sum(row["probabilities"]) == pytest.approx(1, abs=1e-5) and "label" not in row for row in rows)
    glue = [line.split("\t") for line in (run / "RTE.tsv").read_text().splitlines()]
    assert glue == [["index", "prediction"], *([row["id"], row["prediction"]] for row in rows)]

    code, _, log = call(["finetune", "--resume", run, "--predict", "dev"])
    assert code == 0, log
    assert "already finished" in log
    rows = [json.loads(line) for line in (run / "predictions-dev.jsonl").read_text().splitlines()]
    accuracy = sum(row["prediction"] == row["label"] for row in rows) / len(rows)
    assert {"accuracy": accuracy} == single["metrics"]


def test_a_finished_run_is_printed_again_and_takes_no_other_options(
    place: Place, single: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_run, "train", lambda *_, **__: pytest.fail("it trained again"))
    assert place.run("single") | {"predicted": single["predicted"]} == single  # another test predicts dev, too
    assert "lm_coef was 0.5, now 0.25" in place.refused("single", lm_coef=0.25)
    assert "--out is not empty" in place.refused("single", resume="never")


def stop_at(step: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal while it takes a step."""
    follow = training_run.RunReporter._step

    def signalled(self: Any, event: Any, progress: Any) -> None:
        follow(self, event, progress)
        if event.step == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(training_run.RunReporter, "_step", signalled)


@pytest.mark.parametrize("optimizer", ["openai-adam", "adamw"])
def test_a_run_stopped_in_mid_epoch_goes_on_to_the_same_bits(
    optimizer: str, place: Place, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if optimizer == "adamw":
        whole, name = place.run("adamw", optimizer=optimizer), "adamw"
    else:
        whole, name = request.getfixturevalue("single"), "single"
    stopped = f"stopped-{optimizer}"
    with monkeypatch.context() as patched:
        stop_at(5, signal.SIGTERM, patched)
        code, _, log = call(place.words(stopped, optimizer=optimizer))
    assert code == 143
    line = log.splitlines()[-1]
    assert f"step 5 of {STEPS} is saved" in line
    assert line.endswith(f"gptkit finetune --resume {place.root / stopped}")
    code, printed, log = call(["finetune", "--resume", place.root / stopped, "--json"])
    assert code == 0, log
    resumed = json.loads(printed)
    assert resumed["resumed_from"] == 5
    assert per_seed(resumed) == per_seed(whole)
    assert place.weights(stopped) == place.weights(name)
    assert place.rows(stopped) == place.rows(name)


def test_the_best_of_several_seeds_is_the_model(
    place: Place, single: dict[str, Any], two_seeds: dict[str, Any]
) -> None:
    assert [one["seed"] for one in two_seeds["per_seed"]] == [0, 1]
    assert place.weights("two-seeds/seed-0") == place.weights("single")
    scores = [one["metrics"]["accuracy"] for one in two_seeds["per_seed"]]
    best = scores.index(max(scores))
    assert place.weights("two-seeds") == place.weights(f"two-seeds/seed-{best}")
    assert place.weights("two-seeds/seed-0") != place.weights("two-seeds/seed-1")
    assert two_seeds["metrics"]["accuracy"] == pytest.approx(sum(scores) / 2)
    assert two_seeds["std"]["accuracy"] == pytest.approx(abs(scores[0] - scores[1]) / math.sqrt(2))
    assert two_seeds["model_dir"] == str(place.root / "two-seeds" / "model")
    assert not (place.root / "two-seeds" / "seed-0" / "checkpoints").exists()
    card = (place.root / "two-seeds" / "model" / "README.md").read_text(encoding="utf-8")
    assert f"| dev accuracy, mean of 2 seeds | {sum(scores) / 2:.2%} (10 items, standard deviation " in card
    assert f"the best of 2 seeds on dev, so optimistic | {max(scores):.2%} |" in card


def test_the_python_of_a_card_predicts(
    single: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(single["model_dir"])
    card = Path("README.md").read_text(encoding="utf-8")
    exec(card.partition("```python\n")[2].partition("```")[0], {})
    assert capsys.readouterr().out.strip() in ("entailment", "not_entailment")
    assert "pipeline_tag" not in card


def test_a_run_has_a_start_and_snapshots_and_of_several_seeds_none_unless_asked_for(
    place: Place, single: dict[str, Any], two_seeds: dict[str, Any]
) -> None:
    run, seed = place.root / "single", place.root / "two-seeds" / "seed-0"
    assert len(list((run / "snapshots").iterdir())) == 8
    assert {path.name for path in seed.iterdir()} >= {"start", "model"}
    assert not (seed / "snapshots").exists()
    for one in (run, seed):
        described = json.loads((one / "start" / "config.json").read_text())
        assert json.loads((one / "model" / "config.json").read_text()).items() >= described.items()
        assert (one / "start" / "tokenizer.json").read_bytes() == (one / "model" / "tokenizer.json").read_bytes()


def test_an_unfinished_run_is_evaluated_by_its_own_head(place: Place, single: dict[str, Any]) -> None:
    run = Path(shutil.copytree(place.root / "single", place.root / "unfinished"))
    (run / "result.json").unlink()
    shutil.rmtree(run / "model")
    code, printed, log = call(
        ["eval", "--task", "rte", "--data", place.root / "data", "--model", run, "--device", "cpu", "--json"]
    )
    assert code == 0, log
    assert f"using its weights of step {STEPS}" in log
    last = place.rows("single")[-1]["accuracy"]
    assert json.loads(printed)["results"]["rte/fine-tuned"]["metrics"]["accuracy"]["value"] == pytest.approx(last)
    shutil.rmtree(run)


def test_more_epochs_are_refused_with_the_reason(place: Place, single: dict[str, Any]) -> None:
    told = place.refused("single", epochs=4)
    assert "epochs was 3, now 4; a fine-tuning run cannot be given more epochs" in told


@pytest.mark.slow
def test_a_run_killed_in_its_second_seed_goes_on_and_grows(place: Place, two_seeds: dict[str, Any]) -> None:
    words = place.words("killed", seeds=2)
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # as many here as there: same bits
    child = subprocess.run([sys.executable, "-c", CHILD, *words], env=environment, capture_output=True, timeout=100)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    first = (place.root / "killed" / "seed-0" / "result.json").read_bytes()
    assert not (place.root / "killed" / "seed-1" / "result.json").exists()

    resumed = place.run("killed", seeds=2)
    assert per_seed(resumed) == per_seed(two_seeds)
    assert place.weights("killed/seed-1") == place.weights("two-seeds/seed-1")
    assert place.rows("killed/seed-1") == place.rows("two-seeds/seed-1")
    second = (place.root / "killed" / "seed-1" / "result.json").read_bytes()
    assert json.loads(second)["resumed_from"] == 4

    grown = place.run("killed", seeds=3)
    assert per_seed(grown)[:2] == per_seed(two_seeds)
    assert [one["seed"] for one in grown["per_seed"]] == [0, 1, 2]
    assert (place.root / "killed" / "seed-0" / "result.json").read_bytes() == first
    assert (place.root / "killed" / "seed-1" / "result.json").read_bytes() == second
    shrunk = place.run("killed")
    assert per_seed(shrunk) == per_seed(two_seeds)[:1]


def test_the_ablation_stands_beside_the_papers(place: Place) -> None:
    words = place.words("study", study="ablation", seeds=2, epochs=1)
    code, table, log = call(words)
    assert code == 0, log
    assert log.splitlines()[-1] == f"next: gptkit finetune --resume {place.root / 'study'} --predict dev"
    lines = {line.split("  ")[0]: line.split() for line in table.splitlines()}
    for name, paper in {"full (aux LM)": "56", "no aux LM": "54.4", "no pre-training": "53.8"}.items():
        [cells] = [cells for title, cells in lines.items() if title.endswith(name)]
        assert paper in cells
    result = place.run("study", study="ablation", seeds=2, epochs=1)
    variants = result["variants"]
    assert list(variants) == ["full", "no_aux", "no_pretraining"]
    for name, variant in variants.items():
        assert variant.keys() >= KEYS
        assert variant["run_dir"] == str(place.root / "study" / name)
        assert [one["seed"] for one in variant["per_seed"]] == [0, 1]
        assert (place.root / "study" / name / "seed-1" / "model" / "config.json").exists()
    assert [one["lm_coef"] for one in variants.values()] == [0.5, 0.0, 0.5]
    assert [one["transfer_layers"] for one in variants.values()] == [None, None, "none"]
    assert result["metrics"] == variants["full"]["metrics"]
    gain = variants["full"]["metrics"]["accuracy"] - variants["no_aux"]["metrics"]["accuracy"]
    assert result["full_minus"]["no_aux"]["mean"] == pytest.approx(gain)
    assert place.weights("study") in [place.weights(f"study/full/seed-{seed}") for seed in (0, 1)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 1, "batch_size": 26}, "the learning rate is 0 at each of the 1 update(s)"),
        ({"study": "ablation", "lm_coef": 0}, "--lm-coef 0"),
        ({"study": "ablation", "transfer_layers": "none"}, "--transfer-layers"),
        ({"out": "single", "seeds": 2}, "this directory holds a single-seed run"),
    ],
)
def test_what_could_only_mislead_is_refused(
    place: Place, single: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    out = options.pop("out", "refused")
    code, _, log = call(place.words(out, **options))
    assert (code, says in log.splitlines()[-1]) == (2, True), log
    assert not (place.root / "refused").exists()
    assert single["metrics"]


def first_row(place: Place, out: str, **options: object) -> dict[str, Any]:
    place.run(out, epochs=1, batch_size=26, dropout=0, warmup_steps=0, **options)
    return place.rows(out)[0]


def test_layers_that_are_not_transferred_start_anew(place: Place) -> None:
    losses = {kept: first_row(place, f"kept-{kept}", transfer_layers=kept)["loss"] for kept in ("none", "0", "1", "2")}
    assert len(set(losses.values())) == 4
    assert losses["2"] < losses["none"]


def test_without_the_auxiliary_loss_a_step_is_the_classifiers_alone(place: Place) -> None:
    with_it = first_row(place, "kept-all")["loss"]
    without = first_row(place, "without-aux", lm_coef=0)["loss"]
    assert without == pytest.approx(math.log(2), abs=0.2)
    assert with_it > without + 0.5


def test_every_group_says_its_rate_and_when_it_joins_in(place: Place) -> None:
    code, _, log = call(
        place.words("gradual", epochs=2, batch_size=26, layer_decay=0.5, unfreeze="gradual", schedule="slanted")
    )
    assert code == 0, log
    rates = [line for line in log.splitlines() if "learning rate" in line]
    assert rates == [
        "embeddings: learning rate 0.000375, frozen for all 2 steps",
        "block 0: learning rate 0.00075, frozen for all 2 steps",
        "block 1: learning rate 0.0015 from step 2",
        "head: learning rate 0.003 from step 1",
    ]
    code, _, log = call(place.words("slanted", epochs=1, batch_size=26, schedule="slanted"))
    assert "all: learning rate 0.003 from step 1" in log.splitlines()


@pytest.mark.parametrize("task", ["stsb", "stsb-soft"])
def test_scores(task: str, place: Place) -> None:
    folder = place.root / f"{task}-data"
    write_lines(folder, lambda i: {"first": text(i, "a"), "second": text(i, "b"), "label": i * 0.55})
    result = place.run(task, task=task, data=folder, epochs=1, batch_size=4, predict="dev")
    assert list(result["metrics"]) == ["pearson", "spearman"]
    rows = [json.loads(line) for line in (place.root / task / "predictions-dev.jsonl").read_text().splitlines()]
    assert all(0 <= row["prediction"] <= 5 for row in rows)
    assert [row["label"] for row in rows] == pytest.approx([i * 0.55 for i in range(5)])


def test_correlations_of_predictions_that_are_all_alike_are_null_and_fail_no_run(place: Place) -> None:
    folder = place.root / "far-data"
    write_lines(folder, lambda i: {"first": text(i, "a"), "second": text(i, "b"), "label": 90 + i})
    (folder / "far.yaml").write_text("format: similarity\nscore_range: [90, 100]\n")  # an untrained head says 90
    words = place.words("far", task=folder / "far.yaml", data=None, epochs=2, seeds=2, predict="dev")
    code, printed, log = call(words)
    assert code == 0, log
    assert "pearson and spearman: n/a where all predictions, or all labels, are alike" in printed
    assert "  pearson n/a  spearman n/a" in log
    result = json.loads((place.root / "far" / "result.json").read_text())
    assert result["metrics"] == result["std"] == result["interval"] == {"pearson": None, "spearman": None}
    assert [(seed["best_epoch"], seed["metrics"]) for seed in result["per_seed"]] == [(1, result["metrics"])] * 2


def test_choices_of_a_task_of_ones_own(place: Place) -> None:
    folder = place.root / "endings"
    write_lines(
        folder, lambda i: {"context": text(i, "c"), "choices": [text(i, str(k)) for k in range(3)], "label": i % 3}
    )
    (folder / "mine.yaml").write_text("name: endings\nformat: multiple-choice\n")
    result = place.run("choices", task=folder / "mine.yaml", data=None, epochs=1, batch_size=4)
    assert (result["task"], result["n_train"], list(result["metrics"])) == ("endings", 9, ["accuracy"])
    assert result["chance"] == {"accuracy": 1 / 3}
    card = (Path(result["model_dir"]) / "README.md").read_text(encoding="utf-8")
    row = r"\| dev accuracy \(dev chose the epoch\) \| \S+% \(5 items, 95% interval .*, chance 33\.33%\) \|"
    assert re.search(row, card)


def test_other_splits_are_predicted_with_what_dev_has_and_never_written_over(place: Place) -> None:
    folder = write_lines(place.root / "mail", lambda i: {"text": text(i, "m"), "label": "ab"[i % 2]})
    (folder / "test.jsonl").write_text((folder / "dev.jsonl").read_text())
    (folder / "new.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    splits = "{train: train.jsonl, dev: dev.jsonl, test: test.jsonl, new: new.jsonl}"
    (folder / "mine.yaml").write_text(f"format: classification\nlabels: [a, b]\nsplits: {splits}\n")
    result = place.run("mail-run", task=folder / "mine.yaml", data=None, epochs=1, batch_size=4, predict="test")
    found = result["predicted"]["test"]
    assert {name: found[name] for name in ("n", "metrics", "item_interval", "chance")} == {
        "n": 5,
        **{name: result[name] for name in ("metrics", "item_interval", "chance")},
    }
    run = place.root / "mail-run"
    words = ["finetune", "--resume", run, "--predict"]
    code, printed, log = call([*words, "new"])
    assert code == 0, log
    assert "95% interval: over 5 items of test" in printed
    again = json.loads((run / "result.json").read_text())
    assert again["predicted"] == result["predicted"] | {"new": again["predicted"]["new"]}
    assert again["finished_at"] == result["finished_at"]
    assert re.search(r"\| test accuracy \| .* \(5 items, 95% interval", (run / "model" / "README.md").read_text())
    written = (run / "predictions-test.jsonl").read_bytes()
    (folder / "test.jsonl").write_text((folder / "new.jsonl").read_text())
    code, _, log = call([*words, "test"])
    assert (code, (run / "predictions-test.jsonl").read_bytes()) == (2, written)
    assert "it holds predictions for other data than test has now" in log
    code, printed, log = call(["eval", "--model", run, "--data", folder / "train.jsonl"])
    assert code == 0, log
    assert "head on train.jsonl" in printed


def test_before_training_an_own_task_is_told_of_shared_rows_and_of_a_rate_for_large_models(place: Place) -> None:
    folder = write_lines(place.root / "shared", lambda i: {"text": text(i // 2, "r"), "label": "ab"[i % 2]})
    (folder / "mine.yaml").write_text("format: classification\nlabels: [a, b]\n")
    words = ["finetune", "--task", folder / "mine.yaml", "--model", place.root / "model", "--dry-run"]
    code, _, log = call(words)
    assert code == 0, log
    assert "warning: 5 of 5 dev examples have the same texts as training examples" in log
    assert "add --recipe demo-classification, which has settings for a small one" in log
    assert "--recipe" not in call([*words, "--learning-rate", "1e-3"])[2]


def test_a_model_of_ones_own_task_predicts_on_another_machine(place: Place, tmp_path: Path) -> None:
    """It carries its task; neither the YAML, nor the model it began with, nor its data need be where they were."""
    made = Place(tmp_path)
    shutil.copytree(place.root / "model", tmp_path / "model")
    folder = write_lines(tmp_path / "stars", lambda i: {"review": text(i, "r"), "stars": ("坏 1", "好 5")[i % 2]})
    described = "name: 评价\nformat: classification\nlabels: [坏 1, 好 5]\nmetrics: [f1, accuracy]\n"
    described += "columns: {text: review, label: stars}\nsplits: {train: train.jsonl, dev: dev.jsonl}\n"
    (folder / "mine.yaml").write_text(described, encoding="utf-8")
    facts = {"task": folder / "mine.yaml", "epochs": 1, "batch_size": 4, "seeds": 2}
    result = made.run("ft", data=None, **facts)
    for run in ("ft", "ft/seed-0", "ft/seed-1"):
        carried = carried_task(tmp_path / run / "model")
        assert carried is not None
        assert (carried.labels, carried.metrics) == (("坏 1", "好 5"), ("f1", "accuracy"))
    card = (tmp_path / "ft" / "model" / "README.md").read_text(encoding="utf-8")
    for file in ("config.yaml", "result.json", "model/config.json", "seed-0/result.json"):
        assert "\\u" not in (tmp_path / "ft" / file).read_text(encoding="utf-8")
    assert '"task": "评价"' in (tmp_path / "ft" / "result.json").read_text(encoding="utf-8")
    assert '"1": "好 5"' in (tmp_path / "ft" / "model" / "config.json").read_text(encoding="utf-8")
    for fact in (
        "| name | 评价 |",
        "| answers | one of 坏 1, 好 5 |",
        "| metrics | f1, accuracy |",
        "--model .  # in another place also --data",
    ):
        assert fact in card
    assert str(folder) not in card.partition("## How it was made")[0]  # which is the command as it was typed

    (folder / "mine.yaml").rename(tmp_path / "gone.yaml")
    folder.rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "model")
    words = ["finetune", "--resume", tmp_path / "ft", "--predict", "dev", "--data", tmp_path / "elsewhere"]
    code, _, log = call(words)
    assert code == 0, log
    rows = [json.loads(line) for line in (tmp_path / "ft" / "predictions-dev.jsonl").read_text("utf-8").splitlines()]
    assert [row["label"] for row in rows] == ["坏 1", "好 5", "坏 1", "好 5", "坏 1"]
    accuracy = sum(row["prediction"] == row["label"] for row in rows) / 5
    assert accuracy in [one["metrics"]["accuracy"] for one in result["per_seed"]]
    assert "pass --data DIR" in call(words[:-2])[2]

    swapped = described.replace("坏 1, 好 5", "好 5, 坏 1")
    folder.mkdir()
    (folder / "mine.yaml").write_text(swapped, encoding="utf-8")
    code, _, log = call(words)
    assert (code, "labels are ['好 5', '坏 1'], but the model's are ['坏 1', '好 5']" in log) == (2, True)


def test_fine_tuned_on_another_task_a_model_carries_that_one(place: Place, tmp_path: Path) -> None:
    described = "format: classification\nlabels: [a, b]\n"
    folder = write_lines(tmp_path / "first", lambda i: {"text": text(i, "f"), "label": "ab"[i % 2]})
    (folder / "first.yaml").write_text(described)
    (folder / "second.yaml").write_text(described.replace("a, b", "b, a"))
    short = {"epochs": 1, "batch_size": 4}
    Place(tmp_path).run("one", task=folder / "first.yaml", data=None, model=place.root / "model", **short)
    Place(tmp_path).run("two", task=folder / "second.yaml", data=None, model=tmp_path / "one", **short)
    Place(tmp_path).run("three", task="rte", data=place.root / "data", model=tmp_path / "two", **short)
    for run, labels in (("one", ("a", "b")), ("two", ("b", "a"))):
        carried = carried_task(tmp_path / run / "model")
        assert carried is not None
        assert carried.labels == labels
    assert carried_task(tmp_path / "three" / "model") is None  # config.json's "rte" says all


def test_the_tasks_own_data_set_of_the_hub(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched: this stands in for the hub, which only a named hf: may ask."""
    asked = []

    def load(*name: str, split: str) -> Dataset:
        assert os.environ.get("HF_HUB_OFFLINE") != "1"
        asked.append((*name, split))
        rows = [{"sentence1": text(i, "1"), "sentence2": text(i, "2"), "label": i % 2, "idx": i} for i in range(6)]
        return Dataset.from_list(rows)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr("gptkit.system.hub.require_hub", lambda _: None)
    place.run("hub", data="hf:", epochs=2)
    assert asked == [("nyu-mll/glue", "rte", "train"), ("nyu-mll/glue", "rte", "validation")]
    assert yaml.safe_load((place.root / "hub" / "config.yaml").read_text())["data"] == "hf:"
    monkeypatch.setattr(training_run, "train", lambda *_, **__: pytest.fail("it trained again"))
    assert place.run("hub", data="hf:", epochs=2)["n_train"] == 6


HEADER = "index\tsentence1\tsentence2\tlabel\n"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("train.tsv", "index\tsentence1\tlabel\n0\ta\tentailment\n", "no column 'sentence2'"),
        ("train.tsv", "index\tsentence1\tsentence1\tlabel\n0\ta\tb\tentailment\n", "duplicate column 'sentence1'"),
        ("train.tsv", HEADER + "0\ta\tb\tmaybe\n", "unknown label 'maybe'"),
        ("train.tsv", HEADER + "0\ta\tb\n", "3 column(s), expected 4"),
        ("train.tsv", HEADER + "0\tcaf\xe9\tb\tentailment\n", "not valid UTF-8: 0xe9"),
        ("dev.tsv", HEADER, "no examples in this split"),
        ("dev.tsv", HEADER + "0\t\tb\tentailment\n", "'sentence1' is empty"),
    ],
)
def test_bad_files_are_named_before_anything_is_written(file: str, content: str, words: str, place: Place) -> None:
    folder = place.root / f"bad-{words}".replace(" ", "-")
    write_rte(folder)
    (folder / file).write_bytes(content.encode("latin-1"))
    line = place.refused(data=folder)
    assert words in line
    assert f"({folder / file}:" in line


def test_bad_scores_are_named_before_anything_is_written(place: Place) -> None:
    for score, words in {"NaN": "NaN is not a JSON number", "7": "the score 7 is out of range"}.items():
        folder = write_lines(place.root / f"score-{score}", lambda i: {"first": "a", "second": "b", "label": 1.0})
        (folder / "dev.jsonl").write_text(f'{{"first": "a", "second": "b", "label": {score}}}\n')
        line = place.refused(task="stsb", data=folder)
        assert words in line
        assert f"({folder / 'dev.jsonl'}:1)" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"transfer_layers": 9},
            "'9' is not a valid number of layers for this model (--transfer-layers) - "
            "pass a number from 0 to 2, or none",
        ),
        ({"predict": "tset"}, "rte has no split 'tset' (--predict) - choose one of train, dev, test"),
        ({"model": "laptop"}, "laptop is a preset: a shape without weights (--model)"),
        ({"model": "no/such/model"}, "no such model directory"),
        ({"model": "bare"}, "no tokenizer in this directory"),
        ({"task": "rtee"}, "did you mean 'rte'?"),
        ({"task": "breaking-nli"}, "for evaluation only"),
        ({"task": "demo-cloze"}, "demo-cloze is made from Python's documentation and reads no data (--data)"),
        ({"task": "typo.yaml"}, "unknown key 'labls' in the task (typo.yaml:2) - did you mean 'labels'?"),
        ({"data": None}, "a folder with train.tsv, train.jsonl|.csv|.tsv|.parquet from GLUE"),
        ({"data": None}, "or --data hf: for hf:nyu-mll/glue:rte on the hub"),
        ({"precision": "fp16"}, "fp16"),
    ],
)
def test_what_needs_no_data_is_refused_before_any_is_read(
    options: dict[str, object], words: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.root)
    Path("typo.yaml").write_text("format: classification\nlabls: [a, b]\n")
    for name in ("bare", "unreadable"):
        Path(name).mkdir(exist_ok=True)
    for split in ("train", "dev", "test"):
        Path("unreadable", f"{split}.tsv").write_text("a header of another file\n")
    assert words in place.refused(**{"data": "unreadable", **options})  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_processes_see_the_losses_of_one(place: Place, single: dict[str, Any]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "gptkit", *place.words("pair", predict="test")],
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
    for ours, theirs in zip(place.rows("single"), place.rows("pair"), strict=True):
        assert ours.keys() == theirs.keys()
        assert theirs == pytest.approx(ours, rel=1e-5)
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-6)
    pair = json.loads((place.root / "pair" / "result.json").read_text())
    assert pair["metrics"] == single["metrics"]
    assert (place.root / "pair" / "RTE.tsv").read_bytes() == (place.root / "single" / "RTE.tsv").read_bytes()
