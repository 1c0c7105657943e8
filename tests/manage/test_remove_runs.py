"""`gptkit runs rm` and `prune`: only runs, only what nobody uses, and nothing half."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptkit.cli.main import main
from gptkit.errors import GptkitError
from gptkit.manage.run_rows import describe
from gptkit.pretrain.options import PretrainOptions
from gptkit.system import files
from gptkit.system.files import RunLock, size_of
from gptkit.training.finished_runs import newest_finished
from gptkit.training.run_directory import RunDirectory, open_run
from run_toy import FINE_TUNED, PRETRAINED, make_run

ROOT = Path("runs")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    found = main(["runs", *words, "--json"])
    captured = capsys.readouterr()
    assert found == code, captured.err
    result: dict[str, Any] = json.loads(captured.out.splitlines()[-1])
    return result


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    return str(run(capsys, *words, code=2)["error"]["message"])


def test_rm_removes_whole_runs_and_says_what_that_frees(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = make_run(ROOT / "红楼梦", result=PRETRAINED), make_run(ROOT / "other")
    (one / "predictions-test.jsonl").write_text("{}\n")
    (one / "scores.json").write_text('{"schema": "gptkit.eval/1"}')
    freed = size_of(one)
    assert run(capsys, "rm", "红楼梦", "runs/红楼梦", "--yes") == {
        "removed": ["runs/红楼梦"],
        "bytes": freed,
        "next": "gptkit runs ls",
    }
    assert [path.name for path in ROOT.iterdir()] == ["other"]
    assert len(list(other.iterdir())) == 8


def test_rm_asks_and_without_an_answer_removes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(ROOT / "one")
    assert refusal(capsys, "rm", "one").endswith(" B needs confirmation, but stdin is not a terminal")
    for answer, is_removed in (("\n", False), ("", False), ("no\n", False), ("yes\n", True)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        assert path.exists()
        assert run(capsys, "rm", "one")["removed"] == (["runs/one"] if is_removed else [])
    assert not path.exists()


def test_a_running_run_is_refused_with_its_process_and_so_are_all_others(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("free", "busy"):
        make_run(ROOT / name, result=PRETRAINED)
    study = make_run(ROOT / "study" / "seed-0", "finetune").parent
    (study / "config.yaml").write_text("# gptkit finetune --recipe config.yaml repeats this run\nseeds: 1\n")
    before = sorted(ROOT.rglob("*"))
    for held, name in ((ROOT / "busy", "busy"), (study / "seed-0", "study")):
        lock = RunLock(held)
        assert f"process {os.getpid()} on " in refusal(capsys, "rm", "free", name, "--yes")
        lock.release()
    lock = RunLock(ROOT / "busy")
    assert "the run is running" in refusal(capsys, "prune", "busy", "--yes")
    assert run(capsys, "prune", "--yes")["removed"] == ["runs/free/checkpoints"]
    lock.release()
    assert {path for path in before if "free/checkpoints" not in str(path)} <= {*ROOT.rglob("*")}


def own_files(path: Path) -> None:
    make_run(path, result=PRETRAINED)
    (path / "thesis.tex").write_text("years of work")


def a_link(path: Path) -> None:
    make_run(Path("target"))
    path.parent.mkdir()
    path.symlink_to(Path("target").absolute())


def a_project(path: Path) -> None:
    """A folder of another program, with names that a run has too."""
    for name in ("model", "checkpoints", "snapshots"):
        (path / name).mkdir(parents=True)
    (path / "config.yaml").write_text("lr: 3\n")
    (path / "model/weights").write_text("years of work")


def a_part(path: Path) -> None:
    make_run(path / "seed-0", "finetune")
    (path / "config.yaml").write_text("seeds: 1\n")


def a_run_in_a_run(path: Path) -> None:
    make_run(path)
    make_run(path / "model/other")


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (a_run_in_a_run, "it", "the folder also holds what is not part of the run: model/other"),
        (own_files, "it", "the folder also holds what is not part of the run: thesis.tex"),
        (a_link, "it", "this is a link, and links are never followed"),
        (a_project, "it", "this is not a gptkit run"),
        (a_part, "runs/it/seed-0", "this is a part of a run"),
        (own_files, "runs", "this is not a gptkit run"),
        (own_files, "runs/it/thesis.tex", "this is a file, not a run"),
        (own_files, ".", "the current directory is inside it"),
        (own_files, "..", "the current directory is inside it"),
        (own_files, "/", "the current directory is inside it"),
        (own_files, "runs/it/..", "this is not a gptkit run"),
        (own_files, str(Path.home()), "this is not a gptkit run"),
        (own_files, "runs/nowhere", "no such run"),
        (own_files, "", "no such run"),
    ],
)
def test_what_is_no_run_is_not_removed(
    make: Callable[[Path], None], name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(ROOT / "it")
    before = sorted(Path().rglob("*"))
    assert refusal(capsys, "rm", name, "--yes") == message
    assert sorted(Path().rglob("*")) == before


def test_links_in_a_run_are_removed_and_what_they_lead_to_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(ROOT / "one", result=PRETRAINED)
    for name in ("checkpoints", "model"):
        shutil.move(path / name, f"scratch-{name}")
        (path / name).symlink_to(Path(f"scratch-{name}").absolute())
    assert run(capsys, "prune", "one", "--yes")["removed"] == []
    run(capsys, "rm", "one", "--yes")
    assert not path.exists()
    assert Path("scratch-checkpoints/step-000020/model.safetensors").exists()
    assert Path("scratch-model/model.safetensors").exists()


class Killed(BaseException):
    pass


def test_a_kill_at_any_moment_leaves_what_ls_calls_damaged_and_rm_finishes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = {name: getattr(files, name) for name in ("remove_file", "remove_directory", "rename")}
    for count in range(20):
        made = make_run(ROOT / "one", result=PRETRAINED)
        left = iter(range(count))

        def die(name: str, *arguments: Path) -> None:
            if next(left, None) is None:  # noqa: B023
                if name == "remove_directory":
                    next(file for file in arguments[0].rglob("*") if file.is_file()).unlink()  # half of it is gone
                raise Killed
            real[name](*arguments)

        with monkeypatch.context() as patched, pytest.raises(Killed) if count < 10 else threading.Lock():
            for name in real:
                patched.setattr(files, name, lambda *paths, name=name: die(name, *paths))
            patched.setattr("gptkit.cli.main.as_gptkit_error", lambda error, *_: (_ for _ in ()).throw(error))
            main(["runs", "rm", "one", "--yes"])
        capsys.readouterr()
        if not list(ROOT.iterdir()):
            break
        [rest] = ROOT.iterdir()
        assert describe(rest)["state"] == ("finished" if rest == made else "damaged")
        assert rest == made or "its removal was interrupted" in describe(rest)["reason"]
        newest = newest_finished(ROOT, lambda result: True, print)
        assert newest is None if count > 1 else newest == rest  # still whole
        run(capsys, "rm", rest.name, "--yes")
        assert not list(ROOT.iterdir())
    assert count == 10  # the name, nine folders and files


def test_a_folder_that_may_not_be_changed_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(ROOT / "one", result=PRETRAINED)

    def refuse(path: Path, *_: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(files, "rename", refuse)  # chmod stops nobody who is root
    for words in (("prune",), ("rm", "one")):
        assert main(["runs", *words, "--yes"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: Permission denied while removing runs/one")
        assert describe(ROOT / "one")["state"] == "finished"


def a_folder_of_another_user(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make os.access say what it says to users who are not root."""
    monkeypatch.setattr(os, "access", lambda folder, mode: not Path(folder).is_relative_to(path))


def test_rm_leaves_another_users_run_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_run(ROOT / "theirs", result=PRETRAINED)
    before = sorted(ROOT.rglob("*"))
    a_folder_of_another_user(monkeypatch, path / "checkpoints")
    assert refusal(capsys, "rm", "theirs", "--yes") == "Permission denied while removing runs/theirs"
    assert sorted(ROOT.rglob("*")) == before


def test_rm_leaves_a_run_whole_if_it_cannot_look_into_a_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(ROOT / "one", result=PRETRAINED)
    a_folder_of_another_user(monkeypatch, path / "model")
    scandir = os.scandir

    def refuse(folder: str) -> Any:
        if Path(folder) == path / "model":
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert refusal(capsys, "rm", "one", "--yes") == "Permission denied while removing runs/one"
    assert path.exists()


def test_prune_skips_the_runs_of_other_users(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        make_run(ROOT / name, result=PRETRAINED)
    a_folder_of_another_user(monkeypatch, ROOT / "b")
    assert main(["runs", "prune", "--yes"]) == 0
    assert "warning: runs/b is skipped: you do not have permission to change it" in capsys.readouterr().err
    assert [path.parent.name for path in sorted(ROOT.glob("*/checkpoints"))] == ["b"]


def test_rm_while_a_run_starts_leaves_it_whole_or_gone() -> None:
    """Of two that race for a directory one is refused; a run that has begun keeps its files."""
    ROOT.mkdir()
    failed: list[BaseException] = []
    over = threading.Event()

    def opened() -> RunDirectory:
        return open_run(PretrainOptions(out=ROOT / "one"), command="pretrain", name="")

    def remove() -> None:
        while not over.is_set():
            try:
                if main(["runs", "rm", "one", "--yes"]) not in (0, 2):
                    failed.append(AssertionError("neither removed nor refused"))
            except BaseException as error:  # for the main thread
                failed.append(error)

    thread = threading.Thread(target=remove, daemon=True)
    thread.start()
    begun = 0
    try:
        for _ in range(60):
            with contextlib.suppress(GptkitError), opened() as directory:
                (directory.path / "metrics.jsonl").write_text("{}\n")
                assert {path.name for path in directory.path.iterdir()} == {"config.yaml", "metrics.jsonl", "run.lock"}
                begun += 1
    finally:
        over.set()
        thread.join()
    assert not failed
    assert begun


def test_a_lock_taken_on_a_removed_file_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    real = filelock.lock_descriptor

    def lock_late(descriptor: int, *, blocking: bool) -> bool:
        (tmp_path / "run.lock").unlink()
        (tmp_path / "run.lock").write_text("process 7 on another")
        return real(descriptor, blocking=blocking)

    monkeypatch.setattr(filelock, "lock_descriptor", lock_late)
    with pytest.raises(GptkitError, match="in use by process 7 on another"):
        RunLock(tmp_path)


def test_more_runs_are_removed_than_files_may_be_open() -> None:
    """In processes of their own: how many files this one has open depends on the tests before."""
    resource = pytest.importorskip("resource")
    names = [make_run(ROOT / str(number), result=PRETRAINED).name for number in range(30)]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for words in (("prune", "--yes"), ("rm", *names, "--yes")):
        done = subprocess.run(
            [sys.executable, "-m", "gptkit", "runs", *words, "--json"],
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, hard)),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["removed"]) == 30


# --- prune ---


def test_prune_removes_checkpoints_of_finished_runs_alone(capsys: pytest.CaptureFixture[str]) -> None:
    make_run(ROOT / "done", result=PRETRAINED)
    make_run(ROOT / "tuned", "finetune", result=FINE_TUNED)
    make_run(ROOT / "cut")
    (ROOT / "notes.txt").write_text("")
    freed = size_of(ROOT / "done/checkpoints") + size_of(ROOT / "tuned/checkpoints")
    assert refusal(capsys, "prune").endswith("needs confirmation, but stdin is not a terminal")
    done = run(capsys, "prune", "--yes")
    assert (sorted(done["removed"]), done["bytes"]) == (["runs/done/checkpoints", "runs/tuned/checkpoints"], freed)
    assert (ROOT / "cut/checkpoints").is_dir()
    assert refusal(capsys, "prune", "cut", "--yes") == "the run is unfinished"
    assert run(capsys, "prune", "--yes")["removed"] == []
    assert {path.name for path in (ROOT / "done").iterdir()} >= {"model", "snapshots", "start", "result.json"}


def test_prune_skips_checkpoints_with_another_run_among_them(capsys: pytest.CaptureFixture[str]) -> None:
    inner = make_run(make_run(ROOT / "one", result=PRETRAINED) / "checkpoints/inner")
    assert run(capsys, "prune", "one", "--yes")["removed"] == []
    assert inner.exists()


def test_a_prune_that_was_killed_is_finished_by_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(ROOT / "one", result=PRETRAINED)
    (path / "checkpoints").rename(path / "removed-checkpoints")
    freed = size_of(path / "removed-checkpoints")
    done = run(capsys, "prune", "--yes")
    assert (done["removed"], done["bytes"]) == (["runs/one/checkpoints"], freed)
    assert not (path / "removed-checkpoints").exists()
    assert run(capsys, "prune", "--yes")["removed"] == []


def test_a_pruned_run_still_serves_and_says_why_it_cannot_go_on(
    small_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(small_run, ROOT / "one")
    config = Path("more.yaml")
    config.write_text((ROOT / "one/config.yaml").read_text().replace("steps: 8", "steps: 16"))
    assert run(capsys, "prune", "one", "--yes")["removed"] == ["runs/one/checkpoints"]
    assert main(["generate", "--max-new-tokens", "2"]) == 0
    assert main(["pretrain", "--resume", "runs/one"]) == 0
    assert len(run(capsys, "show", "one", "--samples")["samples"]) == 4
    before = sorted(ROOT.rglob("*"))
    assert main(["pretrain", "--recipe", str(config), "--out", "runs/one"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: the finished run has no checkpoint to continue from (runs/one)" in error
    assert sorted(ROOT.rglob("*")) == before
