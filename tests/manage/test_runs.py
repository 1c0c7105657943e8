"""`gptkit runs ls` and `show`: every condition that a folder of runs can be in is a row."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gptkit
from gptkit.cli.main import main
from gptkit.manage.run_rows import describe
from gptkit.manage.runs import sparkline, state_of
from gptkit.system.files import RunLock
from gptkit.training.metrics import newest_rows
from run_toy import FINE_TUNED, FINISHED, PRETRAINED, make_run

ROOT = Path("runs")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    found = main(["runs", *words, "--json"])
    captured = capsys.readouterr()
    assert found == code, captured.err
    assert "Traceback" not in captured.err
    result: dict[str, Any] = json.loads(captured.out)
    return result


def test_ls_says_what_each_run_is_newest_first(capsys: pytest.CaptureFixture[str]) -> None:
    make_run(ROOT / "first", result=PRETRAINED, data=["/texts/红楼梦.txt"])
    make_run(ROOT / "cut", until=15, data=[])
    make_run(ROOT / "tuned", "finetune", result=FINE_TUNED | {"finished_at": "2026-01-03T03:04:05+00:00"})
    make_run(ROOT / "tuning", "finetune", steps=40, until=10, data="/glue/RTE")
    for name, stamp in (("cut", 1_000), ("tuning", 2_000)):
        os.utime(ROOT / name / "metrics.jsonl", (stamp, stamp))
    lock = RunLock(ROOT / "tuning")
    rows = run(capsys, "ls")["runs"]
    lock.release()
    assert [Path(row["path"]).name for row in rows] == ["tuned", "first", "tuning", "cut"]
    told = ("command", "data", "state", "step", "steps", "metric", "value", "finished_at")
    assert [tuple(row[name] for name in told) for row in rows] == [
        ("finetune", "rte", "finished", 20, 20, "accuracy", 0.75, "2026-01-03T03:04:05+00:00"),
        ("pretrain", "/texts/红楼梦.txt", "finished", 20, 20, "bits_per_byte", 2.0, FINISHED),
        ("finetune", "rte, /glue/RTE", "running", 10, 40, "accuracy", 0.75, None),
        ("pretrain", "embedded corpus", "unfinished", 15, 20, "bits_per_byte", 4.0, None),
    ]
    assert [state_of(row) for row in rows] == ["finished 20", "finished 20", "running 10/40", "unfinished 15/20"]
    assert f"process {os.getpid()} on " in rows[2]["reason"]
    sizes = [sum(file.stat().st_size for file in Path(row["path"]).rglob("*") if file.is_file()) for row in rows]
    assert [row["bytes"] for row in rows[:2]] == sizes[:2]


def test_an_own_task_is_shown_by_the_name_of_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    make_run(ROOT / "tuned", "finetune", result=FINE_TUNED, task="tasks/mails.yaml")
    assert run(capsys, "ls")["runs"][0]["data"] == "mails"


def test_the_best_figure_is_shown_with_its_step(capsys: pytest.CaptureFixture[str]) -> None:
    best = {"step": 10, "val_loss": 2.0, "val_perplexity": 7.4, "bits_per_byte": 1.5}
    make_run(ROOT / "done", result=PRETRAINED | {"best": best})
    for name, command in (("cut", "pretrain"), ("tuning", "finetune")):
        path = make_run(ROOT / name, command) / "metrics.jsonl"
        later = {"step": 30, "tokens": 300, "loss": 1.0, "val_loss": 9.0, "bits_per_byte": 8.0}
        later = later if command == "pretrain" else {**later, "accuracy": 0.5, "bits_per_byte": None}
        path.write_text(path.read_text() + json.dumps(later) + "\n")
    found = {Path(row["path"]).name: (row["value"], row["best_step"]) for row in run(capsys, "ls")["runs"]}
    assert found == {"done": (1.5, 10), "cut": (2.0, 20), "tuning": (0.75, 10)}
    assert main(["runs", "ls"]) == 0
    out = capsys.readouterr().out
    assert "best figure" in out
    assert "bits/byte 1.5 at 10" in out
    assert main(["runs", "show", "done"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"best figure +bits/byte 1.5 at 10\nlast figure +bits/byte 2 at 20\n", out)


def test_a_checkpoint_newer_than_the_last_row_counts(capsys: pytest.CaptureFixture[str]) -> None:
    make_run(ROOT / "stopped", until=17)  # with rows up to step 15
    [row] = run(capsys, "ls")["runs"]
    assert state_of(row) == "unfinished 17/20"


def test_of_a_long_unfinished_run_the_newest_figure_is_shown_without_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(ROOT / "long") / "metrics.jsonl"
    rows = path.read_text()
    path.write_text(" " * (1 << 16) + f"\n{rows}" + rows.replace('"bits_per_byte": 2.0', '"bits_per_byte": 9.0'))
    [row] = run(capsys, "ls")["runs"]
    assert (row["value"], row["best_step"]) == (9.0, None)


def test_ls_on_a_terminal_of_60_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(ROOT / "pretrain-laptop-20260102-030405", result=PRETRAINED)
    for name in ("CI", "GITHUB_ACTIONS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["runs", "ls"]) == 0
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert all(len(line) <= 60 for line in out.splitlines())
    for word in ("pretrain", "embedded", "finished", "bits/byte"):
        assert word in out  # not cut in two


def a_link(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to("nowhere")


def a_loop(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.name)


def a_file(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("notes")


def a_run_with(file: str, text: str | None) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        make_run(path, result=PRETRAINED)
        (path / file).unlink()
        if text is not None:
            (path / file).write_text(text)

    return spoil


def a_probe(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "result.json").write_text('{"command": "probe"}')


def a_run_with_a_pipe(path: Path) -> None:
    a_run_with("metrics.jsonl", None)(path)
    (path / "result.json").unlink()
    os.mkfifo(path / "metrics.jsonl")


NOT_FLAT = "not flat `key: value` lines (runs/it/config.yaml)"
HEADER = "# gptkit pretrain --recipe config.yaml repeats this run\n"
BROKEN = (
    (a_file, "not a run: a file"),
    (a_link, "not a run: a dangling link"),
    (a_loop, "not a run: a dangling link"),
    (lambda path: path.mkdir(parents=True), "not a run, or its config.yaml is missing"),
    (lambda path: (path / "src").mkdir(parents=True), "not a run, or its config.yaml is missing"),
    (lambda path: make_run(path / "inside"), "not a run, but a folder of runs: gptkit runs ls --root runs/it"),
    (a_probe, "not a run, but what gptkit probe wrote: open probe.html in it"),
    (a_run_with("config.yaml", None), "not a run, or its config.yaml is missing"),
    (a_run_with("config.yaml", ""), "not written by gptkit (runs/it/config.yaml)"),
    (a_run_with("config.yaml", "steps: 3\n"), "not written by gptkit (runs/it/config.yaml)"),
    (a_run_with("config.yaml", HEADER + "steps: 3"), "truncated (runs/it/config.yaml)"),
    (a_run_with("config.yaml", HEADER), NOT_FLAT),
    (
        a_run_with("config.yaml", HEADER + "a: &a [b]\nc: [*a, *a]\n"),
        "not flat `key: value` lines (runs/it/config.yaml)",
    ),
    (
        a_run_with("config.yaml", HEADER + "a: " + "[" * 60_000 + "]" * 60_000 + "\n"),
        "not flat `key: value` lines (runs/it/config.yaml)",
    ),
    (a_run_with("result.json", '{"command": '), "not valid JSON: Expecting value (runs/it/result.json:1)"),
    (a_run_with("result.json", "[]"), "this is a JSON array, but an object is needed (runs/it/result.json)"),
    (a_run_with("model/tokenizer.json", None), "the tokenizer is missing (runs/it/model)"),
    (a_run_with_a_pipe, "not a regular file (runs/it/metrics.jsonl)"),
)


@pytest.mark.parametrize(("make", "reason"), BROKEN, ids=[str(number) for number in range(len(BROKEN))])
def test_what_is_damaged_or_no_run_is_a_row_that_says_why(
    make: Callable[[Path], object], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(ROOT / "it")
    [row] = run(capsys, "ls")["runs"]
    assert (row["path"], row["state"], row["reason"]) == ("runs/it", "damaged", reason)
    assert run(capsys, "show", "it")["reason"] == reason
    assert main(["runs", "ls"]) == 0
    assert main(["runs", "show", "it"]) == 0


def test_a_run_on_a_file_whose_name_is_not_utf8_is_not_damaged(capsys: pytest.CaptureFixture[str]) -> None:
    a_run_with("config.yaml", HEADER + 'data:\n- "caf\\uDCE9.txt"\n')(ROOT / "it")
    [row] = run(capsys, "ls")["runs"]
    assert (row["state"], row["data"]) == ("finished", "caf\udce9.txt")


def test_a_folder_that_may_not_be_read_is_a_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(ROOT / "it")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "it")

    monkeypatch.setattr("gptkit.manage.run_rows.read_text", refuse)  # chmod stops nobody who is root
    [row] = run(capsys, "ls")["runs"]
    assert (row["state"], row["reason"]) == ("damaged", "permission denied")


def test_a_name_with_a_line_break_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    a_file(ROOT / "two\nlines")
    assert main(["runs", "ls"]) == 0
    assert "runs/two\\nlines: not a run: a file\n" in capsys.readouterr().err


def test_ls_names_the_newest_run_next_and_not_what_is_newer_but_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    make_run(ROOT / "mine", result=PRETRAINED)
    (ROOT / "notes.txt").write_text("newer")
    assert run(capsys, "ls")["next"] == "gptkit runs show runs/mine"


def test_a_link_to_a_run_is_shown_as_that_run_and_hidden_files_are_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run(Path("elsewhere"), result=PRETRAINED)
    ROOT.mkdir()
    (ROOT / "linked").symlink_to("../elsewhere")
    (ROOT / ".DS_Store").write_text("")
    [row] = run(capsys, "ls")["runs"]
    assert (row["path"], row["state"]) == ("runs/linked", "finished")


def test_a_run_of_several_seeds_is_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    study = ROOT / "study"
    for seed in (0, 1):
        make_run(study / f"seed-{seed}", "finetune", result=FINE_TUNED if seed == 0 else None)
    (study / "config.yaml").write_text((study / "seed-0/config.yaml").read_text() + "seeds: 3\n")
    [row] = run(capsys, "ls")["runs"]
    assert (row["state"], row["reason"]) == ("unfinished", "1 of 3 seeds finished")
    shown = run(capsys, "show", "study")
    assert run(capsys, "show", "study/seed-0")["path"] == "runs/study/seed-0"
    assert [(Path(one["path"]).name, one["state"]) for one in shown["runs"]] == [
        ("seed-0", "finished"),
        ("seed-1", "unfinished"),
    ]


def test_a_run_that_diverged_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(ROOT / "one", until=10)
    for step, reason in ((14, "diverged at step 14"), (9, None)):  # which it passed when it was resumed
        (path / "diverged.json").write_text(json.dumps({"step": step}))
        [row] = run(capsys, "ls")["runs"]
        assert (row["state"], row["reason"]) == ("unfinished", reason)


def test_no_runs_and_a_wrong_root(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "ls") == {"runs": [], "next": "gptkit pretrain"}
    assert run(capsys, "ls", "--root", "nowhere", code=2)["error"]["message"] == "no such file or directory"
    make_run(ROOT / "one")
    assert run(capsys, "ls", "--root", "runs/one", code=2)["error"]["fix"] == "gptkit runs show runs/one"


def test_five_hundred_runs_take_few_files_each_and_no_torch() -> None:
    """A second for 500 runs is 2 ms each: no weights, no checkpoint, no whole metrics.jsonl is read for a row."""
    for number in range(20):
        make_run(ROOT / f"run-{number}", result=PRETRAINED if number % 2 else None)
    script = """
import sys
opened = []
def note(event, facts):
    if event == "open" and "run-" in str(facts[0]):
        opened.append(str(facts[0]))
sys.addaudithook(note)
from gptkit.cli.main import main
assert main(["runs", "ls"]) == 0
assert not {"torch", "transformers", "matplotlib"} & set(sys.modules)
assert not [name for name in opened if "checkpoints" in name or "snapshots" in name]
print(len(opened), file=sys.stderr)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(gptkit.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stderr.split()[-1]) <= 20 * 4  # the lock, config.yaml, then result.json and weights, or metrics


def test_the_newest_rows_come_from_the_end_of_a_long_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    row = '{"step": %d, "tokens": 1, "loss": 2.0}\n'
    path.write_text("x" * (1 << 20) + "\n" + "".join(row % step for step in range(1, 5001)) + '{"step": 5001, "tok')
    steps = [row["step"] for row in newest_rows(path)]
    assert steps[0] == 5000
    assert steps == [*range(5000, steps[-1] - 1, -1)]
    assert len(steps) < (1 << 16) / 30


def test_ls_while_runs_come_and_go_disturbs_nobody() -> None:
    """A run that opens its directory at the same moment gets its lock all the same."""
    ROOT.mkdir()
    failed: list[Exception] = []
    over = threading.Event()

    def live() -> None:
        try:
            while not over.is_set():
                (ROOT / "fresh").mkdir()
                RunLock(ROOT / "fresh").release()
                (ROOT / "fresh/run.lock").unlink()
                (ROOT / "fresh").rmdir()
        except Exception as error:  # for the main thread
            failed.append(error)

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    try:
        states = {describe(ROOT / "fresh")["state"] for _ in range(150)}
    finally:
        over.set()
        thread.join()
    assert not failed
    assert states <= {"damaged", "running"}


# --- show ---


def test_show_names_what_is_not_the_default_and_the_command_to_go_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    make_run(ROOT / "mine", until=10, seed=7, tokenizer="bpe:300", dropout=0.0, learning_rate=0.022, data=["/a b.txt"])
    shown = run(capsys, "show", "mine")
    assert shown["changed"] == {"steps": 20, "seed": 7, "tokenizer": "bpe:300", "data": ["/a b.txt"]}
    assert shown["config"]["learning_rate"] == 0.022  # that of the recipe, laptop
    assert shown["result"] is None
    assert [(one["step"], one["committed"]) for one in shown["checkpoints"]] == [(10, True)]
    assert shown["next"] == "gptkit pretrain --resume runs/mine"
    make_run(ROOT / "done $x", result=PRETRAINED)
    assert run(capsys, "show", "runs/done $x")["next"] == "gptkit generate --model 'runs/done $x'"
    make_run(ROOT / "tuned", "finetune", result=FINE_TUNED, data="/glue/RTE")
    assert run(capsys, "show", "tuned")["next"] == "gptkit eval --model runs/tuned --data /glue/RTE"
    make_run(Path("tuned"))
    assert run(capsys, "show", "tuned")["path"] == "runs/tuned"  # not that of the same name beside the runs
    assert run(capsys, "show", "./tuned")["path"] == "tuned"
    assert run(capsys, "show", "tumed", code=2)["error"]["fix"] == "did you mean 'tuned'?"


def test_show_prints_options_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    make_run(ROOT / "mine", data=["/a.txt", "/b.txt"], seed=1234567, learning_rate=0.00123456)
    assert main(["runs", "show", "mine"]) == 0
    out = capsys.readouterr().out
    options = out.partition("options that are not the defaults")[2]
    for line in (r"data +/a.txt, /b.txt", r"seed +1234567", r"learning_rate +0.00123456"):
        assert re.search(f"^{line}$", options, re.MULTILINE)


def test_show_calls_no_option_changed_where_the_defaults_are_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    make_run(ROOT / "newer", dropout=0.0, of_a_later_version=1)
    assert main(["runs", "show", "newer"]) == 0
    assert "\noptions\n" in capsys.readouterr().out


def test_show_prints_losses_as_a_line_of_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    assert sparkline([8.0, 1.0, 4.5]) == "8 █▁▅ 4.5"
    assert sparkline([3.0, 3.0]) == "3 ▁▁ 3"
    long = sparkline([float(step) for step in range(100, 0, -1)])
    assert long.startswith("100 █")
    assert long.endswith("▁ 1")
    make_run(ROOT / "mine", result=PRETRAINED)
    assert main(["runs", "show", "mine"]) == 0
    out = capsys.readouterr().out
    assert "12 █▃▂▁ 3" in out  # losses 12, 6, 4 and 3
    assert "step-000020" not in out
    assert "steps 20" in out


def test_samples_along_a_run_are_those_of_generate(small_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = run(capsys, "show", str(small_run), "--samples")["samples"]
    assert [sample["step"] for sample in samples] == [2, 4, 6, 8]
    assert samples == run(capsys, "show", str(small_run), "--samples")["samples"]
    assert len({sample["text"] for sample in samples}) > 1
    first = small_run / "snapshots/step-000002"
    flags = ["--max-new-tokens", "40", "--top-k", "25", "--seed", "0", "--json"]
    assert main(["generate", "--model", str(first), *flags]) == 0
    assert json.loads(capsys.readouterr().out)["samples"][0]["text"] == samples[0]["text"]


def test_samples_say_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    make_run(ROOT / "tuned", "finetune", result=FINE_TUNED)
    make_run(ROOT / "bare", until=0)
    for folder in ("checkpoints", "snapshots"):
        (ROOT / f"bare/{folder}/step-000000/MANIFEST.json").unlink()
    for name, message in (
        ("tuned", "samples are for language models, but this is a run of gptkit finetune"),
        ("bare", "no intact checkpoint, no snapshot and no finished model"),
    ):
        assert run(capsys, "show", name, "--samples", code=2)["error"]["message"] == message


def test_describe_raises_nothing_for_a_run_that_has_vanished() -> None:
    assert describe(ROOT / "gone")["state"] == "damaged"
