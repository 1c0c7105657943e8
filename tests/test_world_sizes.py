"""One run on 1, 2, 4 or 8 processes: the same samples, draws, losses and figures, and it goes on on any of them.

The command lines run as they are; see observed_runs.py for how the processes are watched.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from sklearn.metrics import f1_score, matthews_corrcoef

pytestmark = pytest.mark.timeout(300)

SCRIPT = Path(__file__).with_name("observed_runs.py")
WORDS = ["a", "red", "cat", "saw", "the", "old", "green", "house", "by", "my", "river", "and", "sang", "it"]
STEPS, SAVED = 50, 30  # SAVED is in the middle of an epoch
ROWS, LENGTH = 10, 32  # of a step: five micro-batches, which 2, 4 and 8 do not divide
TRAIN, DEV = {"mrpc": 254, "cola": 104}, 90
RUNS = ["pretrain", "lstm", "masked", "mrpc", "cola"]
ON_TWO = ("lstm", "masked")  # not on more processes: the loop does not know which of the models it trains
POSITIVE = {"mrpc": "equivalent", "cola": "acceptable"}
SCORES = {"f1": f1_score, "matthews": matthews_corrcoef}
COMMON = {
    "dropout": 0.1,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "compile": "off",
    "device": "cpu",
    "log_every": 1,
    "save_every": SAVED,
    "keep_checkpoints": 99,
}


def text(seed: str, most: int) -> str:
    chance = random.Random(seed)
    return " ".join(chance.choices(WORDS, k=chance.randint(1, most)))


def write_inputs(root: Path) -> None:
    """Text, two tasks with sequences of every length, and a recipe for each command."""
    for name, lines in {"train": 600, "validation": 400}.items():
        (root / f"{name}.txt").write_text("".join(f"{text(f'{name}{i}', 16)} {i}.\n" for i in range(lines)))
    shape = {"model_type": "gptkit", "n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 2}
    (root / "shape.json").write_text(json.dumps(shape))
    lstm = {"model_type": "gptkit-lstm", "n_positions": 96, "n_embd": 32, "n_layer": 2, "n_inner": 48}
    (root / "lstm.json").write_text(json.dumps(lstm))
    pretraining = {
        **{"model": str(root / "shape.json"), "tokenizer": "char", "validation": str(root / "validation.txt")},
        **{"steps": STEPS, "tokens_per_step": ROWS * LENGTH, "sequence_length": LENGTH, "micro_batch": 2},
        **{"eval_every": SAVED, "warmup_steps": 0, "schedule": "constant", "sample_tokens": 0},
    }
    finetuning = {"batch_size": 10, "micro_batch": 2, "optimizer": "adamw", "predict": "dev"}
    for name, recipe in {"pretrain": pretraining, "finetune": finetuning}.items():
        (root / f"{name}.yaml").write_text(yaml.safe_dump(COMMON | recipe))
    for task in ("mrpc", "cola"):
        (root / task).mkdir()
        for split, count in {"train": TRAIN[task], "dev": DEV}.items():
            (root / task / f"{split}.tsv").write_text(table(task, split, count))


def table(task: str, split: str, count: int) -> str:
    lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"] if task == "mrpc" else []
    for i in range(count):
        first, second = text(f"{split}{i}", 8), text(f"{split}{i}b", 8)
        label = int(len(first) > 20)
        lines.append(f"{label}\t{i}\t{i}\t{first}\t{second}" if task == "mrpc" else f"x\t{label}\t\t{first}")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Place:
    """A folder with what the launches left: run directories `name-processes`, notes in `notes-processes`."""

    root: Path

    def launch(self, *sizes: int, spoil: dict[str, Any] | None = None) -> str:
        """Run all of each size, then, if given, two processes to an error; return what they printed."""
        launches = [self._launch(size) for size in sizes] + ([self._failing(spoil)] if spoil else [])
        plan = self.root / f"plan-{'-'.join(map(str, sizes))}.json"
        plan.write_text(json.dumps(launches))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GPTKIT_CACHE": str(self.root / "cache")}
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(plan)], env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        left = [one.pid for one in psutil.process_iter(["cmdline"]) if str(plan) in (one.info["cmdline"] or [])]
        assert not left
        return done.stderr

    def _launch(self, size: int) -> dict[str, Any]:
        root = self.root
        tuned = ["--model", str(root / "pretrain-2" / "model"), "--recipe", str(root / "finetune.yaml")]
        words = {
            "pretrain": self._pretraining(),
            "lstm": [*self._pretraining(), "--model", str(root / "lstm.json")],
            "masked": [*self._pretraining(), "--objective", "masked"],
            "mrpc": ["finetune", "--task", "mrpc", "--data", str(root / "mrpc"), "--epochs", "2", *tuned],
            "cola": ["finetune", "--task", "cola", "--data", str(root / "cola"), "--epochs", "1", *tuned],
        }
        words = {name: line for name, line in words.items() if size <= 2 or name not in ON_TWO}
        runs: list[dict[str, Any]] = [
            {"name": name, "words": [*line, "--out", str(root / f"{name}-{size}")]} for name, line in words.items()
        ]
        if size != 2:
            for name in words.keys() - {"cola"}:
                out = str(root / f"resumed-{name}-{size}")
                line = [words[name][0], "--resume", out, "--num-processes", str(size)]
                runs.append({"name": f"resumed-{name}", "words": line, "begun": [str(root / f"{name}-2"), out, SAVED]})
        return {"processes": size, "notes_of": str(root / f"notes-{size}"), "runs": runs}

    def _failing(self, spoil: dict[str, Any]) -> dict[str, Any]:
        words = [*self._pretraining(), "--out", str(self.root / "failed")]
        runs = [{"name": "failed", "words": words, "spoil": spoil}]
        return {"processes": 2, "notes_of": str(self.root / "notes-failed"), "runs": runs}

    def _pretraining(self) -> list[str]:
        return ["pretrain", str(self.root / "train.txt"), "--recipe", str(self.root / "pretrain.yaml")]

    def rows(self, run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / run / "metrics.jsonl").read_text().splitlines()]

    def notes(self, name: str, size: int) -> list[dict[str, Any]]:
        """What each rank of a run noted."""
        return [json.loads((self.root / f"notes-{size}" / f"{name}-{rank}.json").read_text()) for rank in range(size)]

    def trained(self, name: str, size: int) -> list[dict[str, Any]]:
        """The micro-batches of a run in their order, dummies left out."""
        found = [one for rank in self.notes(name, size) for one in rank["trained"] if one["weight"]]
        return sorted(found, key=lambda one: (one["step"], one["row"]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("world-sizes")
    write_inputs(root)
    place = Place(root)
    fault = {"rank": 1, "step": 3, "error": "OutOfMemoryError", "message": "CUDA out of memory"}
    (root / "stderr.txt").write_text(place.launch(2, 1, 4, spoil=fault))
    return place


@pytest.fixture(scope="module")
def on_eight(place: Place) -> None:
    place.launch(8)


@pytest.fixture(params=[1, 2, 4, pytest.param(8, marks=pytest.mark.slow)])
def size(request: pytest.FixtureRequest, place: Place) -> int:
    if request.param == 8:
        request.getfixturevalue("on_eight")
    return int(request.param)


@pytest.fixture(autouse=True)
def _skipped_on_many(request: pytest.FixtureRequest) -> None:
    values = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if values.get("name") in ON_TWO and int(values.get("size", 0)) > 2:
        pytest.skip("it runs on one and two processes")


@pytest.mark.parametrize("name", RUNS)
def test_a_step_trains_on_the_same_samples_and_drops_the_same_units(name: str, size: int, place: Place) -> None:
    """Samples by a hash of each micro-batch's tensors, dropout by one of the generator's state after it."""
    facts = ("step", "row", "count", "sees", "draws")
    ours = [[one[fact] for fact in facts] for one in place.trained(name, size)]
    assert ours == [[one[fact] for fact in facts] for one in place.trained(name, 1)]
    assert len({(one[0], one[1]) for one in ours}) == len(ours)  # none of them twice
    assert len({one[3] for one in ours}) > 0.9 * len(ours)  # and the hash tells them apart
    shares = [[one["step"] for one in rank["trained"]] for rank in place.notes(name, size)]
    assert all(share == shares[0] for share in shares)  # every process runs equally many passes


@pytest.mark.parametrize("name", RUNS)
def test_losses_and_figures_are_those_of_one_process(name: str, size: int, place: Place) -> None:
    ours, theirs = place.rows(f"{name}-{size}"), place.rows(f"{name}-1")
    assert len(ours) == (STEPS if name != "cola" else 10)
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        assert (one["step"], one["tokens"], one["learning_rate"]) == (
            other["step"],
            other["tokens"],
            other["learning_rate"],
        )
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
        for figure in one.keys() & {"val_loss", "masked_loss", "bits_per_byte", "f1", "accuracy", "matthews"}:
            assert one[figure] == pytest.approx(other[figure], rel=1e-6, abs=1e-12), figure
    assert ours[-1]["loss"] < ours[0]["loss"]


@pytest.mark.parametrize("name", RUNS)
def test_gradients_are_exchanged_once_a_step(name: str, size: int, place: Place) -> None:
    if size == 1:
        pytest.skip("one process exchanges nothing")
    for rank in place.notes(name, size):
        assert all(one["all_reduces"] == one["is_last"] for one in rank["trained"])
        assert size == 8 or not all(one["is_last"] for one in rank["trained"])  # eight have one pass each
        assert len(set(rank["all_reduces"])) == 1  # of all parameters at once: a small model is one bucket


def test_validation_scores_every_token_once(size: int, place: Place) -> None:
    seen = [[batch for batch in rank["validated"]] for rank in place.notes("pretrain", size)]
    windows = sorted(window for rank in seen for batch in rank for window in batch)
    expected = sorted(window for batch in place.notes("pretrain", 1)[0]["validated"] for window in batch)
    assert windows == expected
    batches = len(place.notes("pretrain", 1)[0]["validated"]) // 2  # of each evaluation, of which there are two
    assert all(batches % processes for processes in (2, 4, 8))
    assert [len(rank) for rank in seen] == [2 * len(range(process, batches, size)) for process in range(size)]


@pytest.mark.parametrize(("name", "metric"), [("mrpc", "f1"), ("cola", "matthews")])
def test_dev_examples_are_predicted_once_and_scored_together(name: str, metric: str, size: int, place: Place) -> None:
    notes = place.notes(name, size)
    evaluations = (2 if name == "mrpc" else 1) + 1  # one an epoch, and --predict dev
    seen = sorted(index for rank in notes for batch in rank["predicted"] for index in batch)
    assert seen == sorted(list(range(DEV)) * evaluations)
    ours, theirs = (
        [json.loads(line) for line in (place.root / f"{name}-{n}" / "predictions-dev.jsonl").read_text().splitlines()]
        for n in (size, 1)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert (one["id"], one["prediction"], one["label"]) == (other["id"], other["prediction"], other["label"])
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    result = json.loads((place.root / f"{name}-{size}" / "result.json").read_text())
    labels, predictions = ([row[key] == POSITIVE[name] for row in ours] for key in ("label", "prediction"))
    assert result["metrics"][metric] == pytest.approx(SCORES[metric](labels, predictions))
    assert len(set(labels)) == 2


def test_the_main_process_alone_writes(size: int, place: Place) -> None:
    for name in [name for name in RUNS if size <= 2 or name not in ON_TWO]:
        main, *others = place.notes(name, size)
        assert any("metrics.jsonl" in path for path in main["written"])
        assert [rank["written"] for rank in others] == [[]] * (size - 1)


@pytest.mark.parametrize("name", [name for name in RUNS if name != "cola"])
def test_a_run_saved_on_two_processes_goes_on_with_the_same_losses(name: str, size: int, place: Place) -> None:
    if size == 2:
        pytest.skip("it was begun there")
    whole, resumed = place.rows(f"{name}-2"), place.rows(f"resumed-{name}-{size}")
    assert place.trained(f"resumed-{name}", size)[0]["step"] == SAVED + 1
    assert resumed[:SAVED] == whole[:SAVED]
    assert [row["step"] for row in resumed] == [row["step"] for row in whole]
    for one, other in zip(resumed[SAVED:], whole[SAVED:], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert one["tokens"] == other["tokens"]


def test_an_error_of_one_rank_ends_all_with_its_message(place: Place) -> None:
    codes = json.loads((place.root / "notes-failed" / "failures.json").read_text())
    assert codes
    assert all(codes.values())  # the launcher notes either one first
    errors = [line for line in (place.root / "stderr.txt").read_text().splitlines() if line.startswith("error:")]
    assert [line for line in errors if line.startswith("error: out of memory")]
    assert all("out of memory" in line or "another process" in line for line in errors), errors
    assert not list((place.root / "failed").glob("*.log"))  # nobody takes it for a bug
