"""Checkpoints with missing, truncated and flipped files: found, told, and the next older one is used; else exit 2."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from children import run_command, start
from effects import effects_of, killed_at
from small_runs import Reference, SmallRuns, checkpoints_of, identical

from figures import Count, Report
from gptkit.training.checkpoints import newest_committed

KINDS = ["pretrain", pytest.param("finetune", marks=pytest.mark.slow)]
ROWS = 15  # of a run that ends after its save of step 14


@dataclass(frozen=True)
class Begun:
    """A run that ended after step 14: its checkpoints of steps 12 and 14 are whole."""

    kind: str
    run: Path
    whole: Path
    words: Callable[[Path], list[str]]

    def copied(self, folder: Path) -> Path:
        """Return a copy of the run, in a folder of its own."""
        return Path(shutil.copytree(self.run, folder / "run"))

    def goes_on_from_the_older(self, run: Path) -> None:
        """Give the command again: one line tells of the newest checkpoint, the older one leads to the same bits."""
        child = run_command(self.words(run), log=run.parent / "log")
        assert child.wait() == 0, child.err
        told = [line for line in child.err.splitlines() if "is not used" in line]
        assert len(told) == 1
        assert "step-000014 is not used: " in told[0]
        assert "resuming from step-000012" in told[0]
        assert json.loads((run / "result.json").read_text())["resumed_from"] == 12
        assert identical(self.whole, run) == []


@pytest.fixture(scope="module", params=KINDS)
def begun(
    request: pytest.FixtureRequest, small: SmallRuns, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> Begun:
    kind = request.param
    whole, run = reference(kind), tmp_path_factory.mktemp("begun") / "run"
    turns = [turn for turn, line in enumerate(effects_of(whole), 1) if line == "open metrics.jsonl"]
    child = start(killed_at, small.words(kind, run), run, turns[ROWS - 1], log=run.parent / "log")
    assert child.wait() == 137, child.err
    assert [path.name for path in checkpoints_of(run)][-2:] == ["step-000012", "step-000014"]
    return Begun(kind, run, whole, lambda out: small.words(kind, out))


def files_of(checkpoint: Path) -> list[Path]:
    return sorted(checkpoint.iterdir())


def truncate(file: Path, chance: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: chance.randrange(len(content))])


def flip(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def is_found(run: Path) -> bool:
    """Say whether the newest checkpoint is rejected with a reason, for the next older one."""
    found = newest_committed(run / "checkpoints")
    [line] = found.lines()
    newest, older = sorted((run / "checkpoints").glob("step-*"), reverse=True)[:2]
    return found.path == older and newest.name in line and "\n" not in line


def test_missing_files_are_found_and_the_older_checkpoint_is_used(
    begun: Begun, tmp_path: Path, count: Count, figure: Report
) -> None:
    names = [path.name for path in files_of(begun.run / "checkpoints" / "step-000014")]
    missing = [*itertools.combinations(names, 1), *itertools.combinations(names, 2)]
    resumed = set(random.Random(7).sample(range(len(missing)), count(1, len(missing))))
    for number, some in enumerate(missing):
        run = begun.copied(tmp_path / f"{number}")
        for name in some:
            (run / "checkpoints" / "step-000014" / name).unlink()
        assert is_found(run), some
        if number in resumed:
            begun.goes_on_from_the_older(run)
        shutil.rmtree(run.parent)
    outcome = f"each file and each two of {len(names)}: all found, one line, next older used; {len(resumed)} run to the"
    outcome += " end: the same bits"
    figure(
        "R5", f"missing files, {begun.kind}", len(missing), outcome, seed=7, bound="100% detected, bit-identical end"
    )


@pytest.mark.parametrize(("row", "damage"), [("R6", truncate), ("R7", flip)])
def test_damaged_bytes_are_found_and_the_older_checkpoint_is_used(
    row: str,
    damage: Callable[[Path, random.Random], None],
    begun: Begun,
    tmp_path: Path,
    count: Count,
    figure: Report,
) -> None:
    chance, trials, ends = random.Random(8), count(150, 1000), count(1, 20)
    run = begun.copied(tmp_path / "many")
    files = files_of(run / "checkpoints" / "step-000014")
    for number in range(trials):
        file = files[number % len(files)]
        whole = file.read_bytes()
        damage(file, chance)
        assert is_found(run), (number, file.name)
        file.write_bytes(whole)
    for number in range(ends):
        run = begun.copied(tmp_path / f"{number}")
        damage(chance.choice(files_of(run / "checkpoints" / "step-000014")), chance)
        begun.goes_on_from_the_older(run)
        shutil.rmtree(run.parent)
    what = "truncations" if damage is truncate else "single bits flipped"
    outcome = (
        f"{trials + ends} of {trials + ends} found, one line, next older used; {ends} run to the end: the same bits"
    )
    figure(
        row, f"{what} over all files, {begun.kind}", trials + ends, outcome, seed=8, bound="100% detected + fallback"
    )


def test_with_all_checkpoints_bad_nothing_starts_over(
    begun: Begun, tmp_path: Path, count: Count, figure: Report
) -> None:
    chance, trials = random.Random(9), count(1, 30)
    for number in range(trials):
        run = begun.copied(tmp_path / f"{number}")
        for checkpoint in checkpoints_of(run):
            damage = chance.choice([truncate, flip, lambda file, _: file.unlink()])
            damage(chance.choice([file for file in files_of(checkpoint) if file.name != "MANIFEST.json"]), chance)
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.lock"}
        child = run_command(begun.words(run), log=run.parent / "log")
        assert child.wait() == 2, child.err
        [line] = child.error_lines
        for checkpoint in checkpoints_of(run):
            assert f"{checkpoint.name}: " in line
        assert {path: path.read_bytes() for path in before} == before
        shutil.rmtree(run.parent)
    outcome = f"{trials} of {trials}: exit 2, one line with the reason of each, nothing on the disk changed"
    figure("R8", f"every checkpoint damaged, {begun.kind}", trials, outcome, seed=9, bound="exit 2, never from step 0")


def finished(reference: Reference, folder: Path, kind: str) -> Path:
    """Return a copy of the finished run, in a folder of its own."""
    folder.mkdir()
    return Path(shutil.copytree(reference(kind), folder / "run"))


def without_weights(run: Path) -> None:
    (run / "model" / "model.safetensors").unlink()


def deep_result(run: Path) -> None:
    (run / "result.json").write_text("[" * 100_000)


def damaged_rows(run: Path) -> None:
    (run / "result.json").unlink()
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 2, "loss": "low", "tokens": 1}\n' + bytes(range(120, 160)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (without_weights, "the run was finished, but no model.safetensors in this directory ("),
        (deep_result, "the run was finished, but not valid JSON: nested too deeply ("),
        (damaged_rows, "2 damaged line(s) dropped, kept in metrics.jsonl.damaged"),
    ],
)
def test_a_finished_run_that_lost_something_is_made_whole_from_its_last_checkpoint(
    damage: Callable[[Path], None], line: str, kind: str, small: SmallRuns, reference: Reference, tmp_path: Path
) -> None:
    run = finished(reference, tmp_path / "place", kind)
    damage(run)
    child = run_command(small.words(kind, run), log=tmp_path / "log")
    assert child.wait() == 0, child.err
    assert child.err.count(line) == 1, child.err
    assert identical(reference(kind), run) == []


def test_without_a_checkpoint_a_finished_run_is_not_trained_anew_unasked(
    small: SmallRuns, reference: Reference, tmp_path: Path
) -> None:
    run = finished(reference, tmp_path / "place", "pretrain")
    without_weights(run)
    shutil.rmtree(run / "checkpoints")
    child = run_command(small.pretrain(run), log=tmp_path / "log")
    assert child.wait() == 2, child.err
    [error] = child.error_lines
    assert "no model.safetensors in this directory" in error
    assert f"remove {run / 'result.json'} to train from scratch" in error
    (run / "result.json").unlink()
    child = run_command(small.pretrain(run), log=tmp_path / "log")
    assert child.wait() == 0, child.err
    assert identical(reference("pretrain"), run) == []
