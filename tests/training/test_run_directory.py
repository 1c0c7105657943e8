from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from training_toy import toy_train

from generation_toy import write_model
from gptkit.errors import InputError, OutOfResources, UsageError
from gptkit.finetune.options import FinetuneOptions
from gptkit.options import fields_of
from gptkit.pretrain.options import PretrainOptions
from gptkit.recipes import read_recipe
from gptkit.training.checkpoints import newest_committed
from gptkit.training.finished_runs import lost_result, newest_finished
from gptkit.training.job import Event, Plan, StepEvent, make_plan
from gptkit.training.metrics import rewind_rows
from gptkit.training.rules import Choices
from gptkit.training.run_directory import RunDirectory, check_run, open_run
from gptkit.training.run_identity import identity_values


def row(step: int, **more: float) -> StepEvent:
    return StepEvent(
        step=step,
        tokens=step * 10,
        loss=1.0 / step,
        learning_rate=1e-3,
        grad_norm=0.5,
        tokens_per_second=100.0,
        elapsed_seconds=1.5,
        data_seconds=0.25,
        evaluation=more,
    )


def opened(options: PretrainOptions, root: Path | None = None) -> RunDirectory:
    return open_run(options, command="pretrain", name="laptop", root=root or Path("runs"))


def test_a_new_run_has_a_name_without_colons_and_is_made_exclusively(tmp_path: Path) -> None:
    runs = [open_run(PretrainOptions(), command="pretrain", name="my: model", root=tmp_path) for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert all(run.path.name.startswith("pretrain-my-model-2") and ":" not in run.path.name for run in runs)
    for run in runs:
        run.close()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("评论", "评论"),
        ("รีวิวหนัง", "รีวิวหนัง"),
        ("हिन्दी समीक्षा", "हिन्दी-समीक्षा"),
        ("مراجعة", "مراجعة"),
        ("Отзывы_2", "Отзывы_2"),
        ("cafe\u0301", "caf\u00e9"),
        ("a😀/b\\c", "a😀-b-c"),
        ("\u202egnp\x1b[31m", "gnp-31m"),
        ("论" * 100, "论" * 26),
        ("...", "model"),
    ],
)
def test_a_new_run_is_named_in_any_script(tmp_path: Path, name: str, shown: str) -> None:
    with open_run(PretrainOptions(), command="finetune", name=name, root=tmp_path) as run:
        assert re.sub(r"\d{8}-\d{6}", "TIME", run.path.name) == f"finetune-{shown}-TIME"


def test_config_is_a_recipe_that_repeats_the_run_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("held-out.txt").write_text("text")
    options = PretrainOptions(
        data=("*.txt", "hf:some/data"),
        validation="held-out.txt",
        model="gpt2-small",
        compile="off",
        learning_rate=1e-4,
        epsilon=1e-12,
        out=tmp_path / "run",
        json=True,
    )
    with opened(options) as run:
        values = read_recipe(run.path / "config.yaml", PretrainOptions)
    assert values.keys().isdisjoint({"out", "resume", "json", "dry_run"})
    assert values["data"] == (str(tmp_path / "*.txt"), "hf:some/data")
    repeated = PretrainOptions(**values)
    same = {"out": None, "json": False, "data": values["data"], "validation": str(tmp_path / "held-out.txt")}
    assert repeated == dataclasses.replace(options, **same)


def test_a_finetune_config_has_absolute_paths_and_the_same_line_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rte").mkdir()  # a folder of data that is called what the task is
    Path("own.yaml").write_text("")
    for task, stored in (("rte", "rte"), ("own.yaml", str(tmp_path / "own.yaml"))):
        options = FinetuneOptions(task=task, data="rte", transfer_layers="none", out=Path(f"run-{task}"))
        for _ in range(2):
            open_run(options, command="finetune", name=task).close()
        values = read_recipe(tmp_path / f"run-{task}" / "config.yaml", FinetuneOptions)
        assert (values["task"], values["data"]) == (stored, str(tmp_path / "rte"))
        assert FinetuneOptions(**values).transfer_layers == "none"
        open_run(dataclasses.replace(options, seeds=5, predict="test"), command="finetune", name=task).close()
        for change in ({"data": "elsewhere"}, {"lm_coef": 0.0}, {"study": "ablation"}, {"transfer_layers": "2"}):
            with pytest.raises(UsageError, match=f"{next(iter(change))} was .*, now "):
                open_run(dataclasses.replace(options, **change), command="finetune", name=task)  # type: ignore[arg-type]


def other_value(value: Any, name: str) -> Any:
    choices = {"schedule": "linear", "optimizer": "muon", "precision": "fp32", "compile": "on", "device": "cpu"}
    if name in choices:
        return choices[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return type(value)(value + 1)
    return ("elsewhere.txt",) if isinstance(value, tuple) else 7 if value is None and "steps" in name else "other"


IDENTITY = [
    name
    for name, one in fields_of(PretrainOptions).items()
    if not one.metadata["resumable"] and name not in ("dropout",)
]


@pytest.mark.parametrize("name", IDENTITY)
def test_a_changed_identity_option_is_refused_naming_key_old_and_new(name: str, tmp_path: Path) -> None:
    options = PretrainOptions(out=tmp_path / "run")
    opened(options).close()
    changed = other_value(getattr(options, name), name)
    if name == "sequence_length":
        changed = 7
    with pytest.raises(UsageError, match=f"{name} was .*, now ") as caught:
        opened(dataclasses.replace(options, **{name: changed}))
    assert caught.value.where == str(tmp_path / "run" / "config.yaml")


def test_resumable_options_may_change(tmp_path: Path) -> None:
    options = PretrainOptions(out=tmp_path / "run")
    opened(options).close()
    opened(dataclasses.replace(options, micro_batch=2, log_every=3, eval_every=5, save_every=5, json=True)).close()


def test_a_checkpoint_knows_every_identity_option_and_files_may_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place, n_head in (("a", 2), ("b", 2), ("c", 4)):
        Path(place).mkdir()
        Path(place, "text.txt").write_text("text")
        Path(place, "config.json").write_text(json.dumps({"n_head": n_head}))

    def kept(place: str, **changes: Any) -> dict[str, str]:
        paths = {"data": (f"{place}/text.txt",), "validation": f"{place}/text.txt", "model": f"{place}/config.json"}
        return identity_values(PretrainOptions(**(paths | {"tokenizer": place} | changes)))

    assert kept("a", steps=7)["steps"] == "7"
    assert kept("a") == kept("b")
    assert {name for name, value in kept("c").items() if value != kept("a")[name]} == {"model"}
    before = identity_values(PretrainOptions())
    for name in set(IDENTITY) - {"data"}:
        changed = 7 if name == "sequence_length" else other_value(getattr(PretrainOptions(), name), name)
        after = identity_values(PretrainOptions(**{name: changed}))
        assert [one for one in after if after[one] != before[one]] == [name]


def test_nothing_of_the_machine_is_identity(tmp_path: Path) -> None:
    """What auto chose here is stored beside the identity: another processor may choose otherwise and still resume."""
    options = PretrainOptions(out=tmp_path / "run")
    here, there = Choices("bf16", True, 2, "cpu"), Choices("fp32", False, 64, "cuda", micro_batch=8)
    plans = [make_plan(options, one, steps=4, eval_every=4, parameters=9, identity={}) for one in (here, there)]
    assert plans[0].identity == plans[1].identity
    assert plans[0].choices != plans[1].choices
    with opened(options) as run:
        train_toy(run, dataclasses.replace(plans[0], precision="fp32", compile=False))
        assert rewind(run, plans[1].identity) == []


def test_a_full_disk_says_that_the_same_directory_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gptkit.system.files.write", full)
    with pytest.raises(OutOfResources, match="free some space; then rerun the same command") as caught:
        opened(PretrainOptions(out=tmp_path / "run"))
    assert "--out" not in str(caught.value)


def test_never_resuming_never_overwrites_and_foreign_directories_are_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    opened(PretrainOptions(out=out, resume="never")).close()
    with pytest.raises(UsageError, match="--out is not empty"):
        opened(PretrainOptions(out=out, resume="never"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is not a run directory"):
        opened(PretrainOptions(out=foreign))
    assert [one.name for one in foreign.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="is a file"):
        opened(PretrainOptions(out=foreign / "thesis.tex"))


def test_what_is_in_the_way_of_a_run_is_named_before_anything_is_done(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    opened(PretrainOptions(out=out)).close()
    elsewhere.write_text("mine")
    folders = ("start", "checkpoints", "checkpoints/damaged", "snapshots", "model")
    for name in (*folders, "metrics.jsonl", "result.json", "run.lock"):
        run = Path(shutil.copytree(out, tmp_path / name.replace("/", "-")))
        path = run / name
        path.unlink(missing_ok=True)
        if path.suffix:
            os.mkfifo(path)
        elif name == "run.lock":
            path.symlink_to(elsewhere)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text("a file")
        with pytest.raises(InputError, match=f"{name} must be a (file|folder) in a run directory") as caught:
            opened(PretrainOptions(out=run))
        assert caught.value.where == str(path)
        assert "move it away; then" in str(caught.value)
    assert elsewhere.read_text() == "mine"
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(UsageError, match="is a dangling link"):
        opened(PretrainOptions(out=tmp_path / "link"))
    with pytest.raises(UsageError, match="not UTF-8"):
        opened(PretrainOptions(out=tmp_path / "\udcff"))


def test_a_damaged_config_is_told_and_may_be_made_anew(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with opened(PretrainOptions(out=out)) as run:
        train_toy(run, Plan(steps=2))
    whole = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text("")
    with pytest.raises(InputError, match=r"config.yaml is damaged.* - remove it"):
        opened(PretrainOptions(out=out))
    (out / "config.yaml").unlink()
    opened(PretrainOptions(out=out)).close()
    assert (out / "config.yaml").read_text() == whole
    with pytest.raises(UsageError, match="this is a run of gptkit pretrain"):
        check_run(FinetuneOptions(out=out), command="finetune")


def test_rows_without_a_checkpoint_are_told(tmp_path: Path) -> None:
    with opened(PretrainOptions(out=tmp_path / "run")) as run:
        run.append(row(1))
        run.append(row(7))
        [line] = rewind(run)
        assert "starting from step 0, not from 7" in line
        assert run.rows() == []


def test_rows_after_the_checkpoint_and_a_torn_line_are_dropped(tmp_path: Path) -> None:
    with opened(PretrainOptions(out=tmp_path / "run")) as run:
        run.append(row(1))
        whole = (run.path / "metrics.jsonl").read_bytes()
        run.append(row(2, val_loss=float("nan")))
        run.append(row(3))
        assert [(one["step"], one.get("val_loss", 0)) for one in run.rows()] == [(1, 0), (2, None), (3, 0)]
        with open(run.path / "metrics.jsonl", "a") as file:
            file.write('{"step": 4, "los')
        rewind_rows(run.path / "metrics.jsonl", 1)
        assert (run.path / "metrics.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    "line",
    [
        b"\x00" * 512,  # as after a power cut
        bytes(range(128, 168)),
        b'{"step": 1}',
        b'{"step": 9, "loss": 1.0}',
        b'{"step": 2, "loss": "low", "tokens": 1}',
        b'{"step": 2, "loss": null, "tokens": 1}',
        b'{"step": 2, "loss": NaN, "tokens": 1}',
        b'{"step": true, "loss": 1.0, "tokens": 1}',
        b'{"step": 2, "loss": 1.0, "tokens": 1, "val_loss": "low"}',
        b'{"step": 2, "loss": 1%s, "tokens": 1}' % (b"0" * 400),
        b"[" * 100_000,
        b"{}",
        b"",
    ],
)
@pytest.mark.parametrize("ending", [b"\n", b""])
def test_what_is_no_row_is_told_and_kept_beside(line: bytes, ending: bytes, tmp_path: Path) -> None:
    with opened(PretrainOptions(out=tmp_path / "run")) as run:
        train_toy(run, Plan(steps=3, save_every=3, log_every=1))
        path, damaged = run.path / "metrics.jsonl", run.path / "metrics.jsonl.damaged"
        rows, whole = run.rows(), path.read_bytes()
        path.write_bytes(whole + line + ending)
        if not ending and (line[:1] == b"{" or not line):  # as if cut off by a kill
            assert rewind(run) == []
            assert not damaged.exists()
        else:
            assert rewind(run) == [f"{path}: 1 damaged line(s) dropped, kept in metrics.jsonl.damaged"]
            assert damaged.read_bytes() == line + b"\n"
        assert run.rows() == rows
        assert path.read_bytes() == whole
        path.write_bytes(whole.replace(b"\n", b"\nnone\n", 1))
        first, second = rewind(run)
        assert "the loss curve cannot be trusted" in first  # the checkpoint knows those before it
        assert "1 damaged line(s) dropped" in second
        assert damaged.read_bytes().endswith(b"none\n")
        assert path.read_bytes() == whole


def test_a_row_that_the_result_needs_is_named_with_the_cure(tmp_path: Path) -> None:
    with opened(PretrainOptions(out=tmp_path / "run")) as run:
        run.append(row(3, val_loss=2.0))
        run.append(row(4))
        assert run.row_of(3, ["val_loss"])["val_loss"] == 2.0
        lost = r"no row for step 4 with val_loss .*remove .*step-000004 and all later checkpoints"
        with pytest.raises(InputError, match=lost):
            run.row_of(4, ["val_loss"])


def rewind(run: RunDirectory, identity: Mapping[str, str] | None = None) -> list[str]:
    return run.rewind(newest_committed(run.checkpoints), identity=identity or {}, keep=2)


def train_toy(run: RunDirectory, plan: Plan) -> None:
    def take(event: Event) -> None:
        if isinstance(event, StepEvent):
            run.append(event)

    toy_train(plan, checkpoint_directory=run.checkpoints, take=take)


def test_another_identity_is_refused_naming_old_and_new_before_anything_changes(tmp_path: Path) -> None:
    with opened(PretrainOptions(out=tmp_path / "run")) as run:
        train_toy(run, Plan(steps=4, save_every=3, log_every=1, identity={"data_sha256": "aa", "tokenizer": "t"}))
        (run.checkpoints / "step-000004" / "state.json").write_text("{}")
        before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
        with pytest.raises(UsageError, match="data_sha256 was aa, now bb") as refusal:
            rewind(run, {"data_sha256": "bb", "tokenizer": "t"})
        assert refusal.value.where == str(run.checkpoints / "step-000003")
        assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["missing", "shorter", "another digit", "a row more"])
def test_rows_that_changed_since_the_checkpoint_are_told(damage: str, tmp_path: Path) -> None:
    with opened(PretrainOptions(out=tmp_path / "run")) as run:
        train_toy(run, Plan(steps=3, log_every=1))
        rows = run.path / "metrics.jsonl"
        text = rows.read_text()
        damaged = {
            "shorter": text[:-9],
            "another digit": text.replace("1", "2", 1),
            "a row more": text + '{"step": 4, "los',
        }
        if damage == "missing":
            rows.unlink()
        else:
            rows.write_text(damaged[damage])
        lines = rewind(run)
        if damage == "a row more":  # of a step made after the save
            assert lines == []
            return
        [line] = lines
        assert line.startswith(f"{rows} is missing" if damage == "missing" else f"{rows} has changed since step-000003")
        assert "the loss curve cannot be trusted" in line


def test_rewinding_goes_to_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    with opened(PretrainOptions(out=tmp_path / "run")) as run:
        assert rewind(run) == []
        train_toy(run, Plan(steps=5, save_every=2, log_every=1))
        (run.checkpoints / "step-000005" / "state.json").write_text("{}")
        found = newest_committed(run.checkpoints)
        assert found.path == run.checkpoints / "step-000004"
        assert found.state.step == 4
        [line] = rewind(run)
        assert "resuming from step-000004" in line
        assert [one["step"] for one in run.rows()] == [1, 2, 3, 4]


def test_a_finished_run_without_checkpoints_is_not_begun_again_for_more_steps(tmp_path: Path) -> None:
    options = PretrainOptions(out=tmp_path / "run", steps=4, schedule="constant")
    with opened(options) as run:
        write_model(run.path / "model")
        run.append(row(4))
        run.finish({"steps": 4, "seed": 0, "run_dir": "run", "model_dir": "model"})
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.suffix in (".json", ".yaml", ".jsonl")}
    with opened(dataclasses.replace(options, steps=8)) as run:
        assert run.new_config is not None
        with pytest.raises(InputError, match="the finished run has no checkpoint to continue from"):
            rewind(run)
    assert {path: path.read_bytes() for path in before} == before


def test_start_is_written_once_and_whole(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "config.json").write_text("{}")

    with opened(PretrainOptions(out=tmp_path / "run")) as run:
        (run.path / "start.tmp").mkdir()  # of a run that was killed
        (run.path / "start.tmp" / "half").touch()
        run.write_start(write)
        run.write_start(lambda folder: pytest.fail("it is there"))
        assert [path.name for path in (run.path / "start").iterdir()] == ["config.json"]
        assert not (run.path / "start.tmp").exists()


def test_rewinding_ends_a_save_that_was_cut_off_before_it_pruned(tmp_path: Path) -> None:
    with opened(PretrainOptions(out=tmp_path / "run")) as run:
        toy_train(Plan(steps=6, save_every=2, keep_checkpoints=3), checkpoint_directory=run.checkpoints)
        (run.checkpoints / "removed-step-000001").mkdir()
        rewind(run)
        assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-000004", "step-000006"]


def test_other_processes_get_a_run_that_writes_nothing(tmp_path: Path) -> None:
    with opened(PretrainOptions(out=tmp_path / "run")) as run:
        elsewhere = RunDirectory(run.path, "pretrain", lock=None)
        elsewhere.append(row(1))
        elsewhere.close()
        with pytest.raises(InputError, match=r"No such file.*metrics.jsonl"):
            run.rows()  # as in a run that somebody removed
        with pytest.raises(InputError, match="in use"):
            opened(PretrainOptions(out=tmp_path / "run"))
        with pytest.raises(InputError, match="in use"):  # before any text is read
            check_run(PretrainOptions(out=tmp_path / "run"), command="pretrain")
    check_run(PretrainOptions(out=tmp_path / "run"), command="pretrain")
    opened(PretrainOptions(out=tmp_path / "run")).close()


def test_the_newest_finished_run_is_the_one_that_finished_last(tmp_path: Path) -> None:
    assert newest_finished(tmp_path / "none", lambda result: True, print) is None
    for name, command in (("b", "pretrain"), ("a", "pretrain"), ("c", "finetune")):
        with open_run(PretrainOptions(out=tmp_path / name), command=command, name="x") as run:
            write_model(run.path / "model")
            result = run.finish({"steps": 3, "seed": 0, "run_dir": "as it was", "model_dir": "as it was"})
        assert result["command"] == command
        assert json.loads((tmp_path / name / "result.json").read_text()) == result
    opened(PretrainOptions(out=tmp_path / "d")).close()  # not finished
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "result.json").write_text("[1]")
    shutil.copytree(tmp_path / "b", tmp_path / "f")  # moved, and a part of it lost
    (tmp_path / "f" / "result.json").write_text('{"command": "pretrain", "finished_at": "2999-01-01T00:00:00+00:00"}')
    shutil.copytree(tmp_path / "c", tmp_path / "g")
    shutil.rmtree(tmp_path / "g" / "model")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        shutil.copytree(tmp_path / "a", tmp_path / f"without {name}")
        (tmp_path / f"without {name}" / "model" / name).unlink()
    shutil.copytree(tmp_path / "a", tmp_path / "h")
    os.truncate(tmp_path / "h" / "model" / "model.safetensors", 5000)
    shutil.copytree(tmp_path / "a", tmp_path / "i")
    (tmp_path / "i" / "result.json").write_text("[" * 100_000)
    (tmp_path / "j").mkdir()
    os.mkfifo(tmp_path / "j" / "result.json")
    lost = [lost_result(path) for path in sorted(tmp_path.iterdir())]
    assert [reason is None for reason in lost] == [True, True, False, True] + [False] * 9, lost
    said: list[str] = []
    assert newest_finished(tmp_path, lambda result: result["command"] == "pretrain", said.append) == tmp_path / "a"
    named = zip(sorted(tmp_path.iterdir()), lost, strict=True)
    assert said == [f"{path} is not used: {reason}" for path, reason in named if reason]
    with opened(PretrainOptions(out=tmp_path / "a")) as again:
        assert again.result is not None
        assert again.result["steps"] == 3
        assert again.result["model_dir"] == str(tmp_path / "a" / "model")
