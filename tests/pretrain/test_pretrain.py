"""`gptkit pretrain` as a user runs it: what it leaves, that it repeats and resumes exactly, and how it refuses."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gptkit.cli.commands import _after_pretrain
from gptkit.cli.main import main
from gptkit.model.loading import load_model
from gptkit.pretrain.command import _overfitting
from gptkit.recipes import CONFIG_HEADER
from gptkit.text.corpora import open_corpus
from gptkit.text.tokenizers.encoding import encode_pieces
from gptkit.text.tokenizers.loading import load_tokenizer
from timings import is_time

KEYS = {
    *("run_dir", "model_dir", "steps", "tokens", "train_loss", "val_loss", "val_perplexity", "bits_per_byte"),
    *("tokens_per_second", "mfu", "train_seconds", "elapsed_seconds", "resumed_from", "data_sha256", "seed"),
    *("version", "finished_at"),
}
TEXT = "".join(f"{i} green bottles, hanging on wall number {i * i};\n" for i in range(400))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))
    Path("text.txt").write_text(TEXT)


def arguments(out: str, **options: object) -> list[str]:
    values = {
        "model": "tiny",
        "tokenizer": "char",
        "steps": 6,
        "tokens_per_step": 128,
        "sequence_length": 32,
        "micro_batch": 3,
        "log_every": 2,
        "eval_every": 3,
        "save_every": 2,
        "compile": "off",
        "out": out,
    } | options
    flags = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return ["pretrain", "text.txt", *flags, "--json"]


def pretrain(capsys: pytest.CaptureFixture[str], out: str, **options: object) -> dict[str, Any]:
    code = main(arguments(out, **options))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    result: dict[str, Any] = json.loads(captured.out)
    return result


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not is_time(name)}


def test_a_run_leaves_what_the_contract_says_and_the_figures_are_true(capsys: pytest.CaptureFixture[str]) -> None:
    result = pretrain(capsys, "run")
    assert result.keys() >= KEYS
    assert json.loads(Path("run/result.json").read_text()) == result
    names = {path.name for path in Path("run").iterdir()}
    folders = {"start", "checkpoints", "snapshots", "model"}
    assert names == {"config.yaml", "metrics.jsonl", "loss.png", "run.lock", "result.json"} | folders
    assert {path.suffix for path in Path("run/model").iterdir()} <= {".json", ".safetensors", ".md", ".txt"}
    assert [row["step"] for row in rows("run")] == [1, 2, 3, 4, 6]
    assert [row["step"] for row in rows("run") if "val_loss" in row] == [3, 6]
    assert result["data_sha256"] in Path("run/model/README.md").read_text()
    identity = json.loads(Path("run/checkpoints/step-000006/state.json").read_text())["identity"]
    corpus = open_corpus(["text.txt"], "0.1")
    for name, value in (("data_sha256", corpus.data_sha256), ("split_sha256", corpus.split_sha256)):
        assert result[name] == identity[name] == value

    model, tokenizer = load_model("run/model"), load_tokenizer("run/model")
    for name in ("config.json", "generation_config.json"):
        said = json.loads(Path("run/model", name).read_text())
        assert said["bos_token_id"] == said["eos_token_id"] == tokenizer.eos_token_id
    held_out = TEXT[int(len(TEXT) * 0.9) :]
    (ids,) = encode_pieces(tokenizer, [held_out])
    nll = 0.0
    for start in range(0, len(ids) - 1, 32):
        window = torch.from_numpy(ids[start : start + 33].astype(np.int64))
        with torch.no_grad():
            logits = model(input_ids=window[None, :-1]).logits[0]
        nll += F.cross_entropy(logits.double(), window[1:], reduction="sum").item()
    tolerance = 1e-6 if torch.get_float32_matmul_precision() == "highest" and result["mfu"] is None else 5e-3
    assert result["val_loss"] == pytest.approx(nll / (len(ids) - 1), rel=tolerance)  # bf16 where the machine has it
    assert result["bits_per_byte"] == pytest.approx(
        result["val_loss"] * (len(ids) - 1) / math.log(2) / len(held_out.encode())
    )


def test_all_files_of_a_run_have_the_mode_that_the_umask_gives(capsys: pytest.CaptureFixture[str]) -> None:
    before = os.umask(0o027)
    try:
        pretrain(capsys, "run")
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in Path("run").rglob("*") if path.is_file()}
    assert modes == {0o640}


def test_a_run_says_at_once_how_often_it_reads_the_text_and_what_an_untrained_model_writes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(arguments("run", schedule="constant")) == 0
    log = capsys.readouterr().err
    training = int(re.findall(r"([\d,]+) training tokens", log)[0].replace(",", ""))
    assert f"6 steps, {6 * 128} tokens: {6 * 128 / training:.3g} times the training text" in log
    assert log.index("random tokens, before training") < log.index("step 2/6")
    assert main(arguments("run", steps=8, schedule="constant")) == 0  # resumed
    assert "before training" not in capsys.readouterr().err


def test_a_run_from_a_model_directory_is_not_said_to_start_from_random_tokens(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--steps", "2", "--tokens-per-step", "128", "--sequence-length", "32", "--json"]
    assert main(arguments("first")) == 0
    capsys.readouterr()
    assert main(["pretrain", "text.txt", "--model", "first/model", "--out", "second", *flags]) == 0
    assert 'sample before training  "' in capsys.readouterr().err
    assert "pre-trained from the weights of first/model with" in Path("second/model/README.md").read_text()


def overfitted(run: Path, *kept: int, last: float = 2.9) -> dict[str, Any]:
    """Return the result of a run whose best step was 120 of 240, and which kept snapshots of these steps."""
    for step in kept:
        folder = run / "snapshots" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        (folder / "MANIFEST.json").write_text("{}")
    return {"run_dir": str(run), "steps": 240, "val_loss": last, "best": {"step": 120, "val_loss": 2.5}}


def test_overfitting_is_said_in_plain_words_with_the_command_that_uses_the_best_weights(tmp_path: Path) -> None:
    assert _overfitting(overfitted(tmp_path, last=2.52)) is None  # 0.8% is noise
    said = _overfitting(overfitted(tmp_path / "my run", 90, 120, 150))
    assert said is not None
    assert "lowest at step 120, 2.5, and rose to 2.9" in said
    assert "--steps 120" in said
    assert f"gptkit generate --model '{tmp_path}/my run/snapshots/step-000120'" in said


def test_the_nearest_weights_are_named_and_none_where_the_last_are_as_near(tmp_path: Path) -> None:
    assert "step 90 are kept" in str(_overfitting(overfitted(tmp_path / "near", 30, 90, 210)))
    for run, kept in (("bare", ()), ("last", (240,)), ("first", (0,))):
        assert "gptkit generate" not in str(_overfitting(overfitted(tmp_path / run, *kept)))


def test_the_next_command_takes_the_best_weights_of_an_overfitted_run(tmp_path: Path) -> None:
    result = overfitted(tmp_path, 120) | {"model_dir": "run/model"}
    line = "gptkit generate --top-k 40 --model "
    assert _after_pretrain(result, ()) == f"{line}{tmp_path}/snapshots/step-000120"
    assert _after_pretrain(result | {"val_loss": 2.5}, ()) == f"{line}{{model_dir}}"


def test_the_best_evaluation_is_in_the_result_and_the_card_says_how_to_use_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter((3.0, 2.0, 2.5))
    measured = {"val_perplexity": 1.0, "bits_per_byte": 1.0}
    monkeypatch.setattr("gptkit.pretrain.job.validate", lambda *_, **__: {"val_loss": next(losses), **measured})
    assert main(arguments("run", steps=6, eval_every=2)) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["best"] == {"step": 4, "val_loss": 2.0, **measured}
    kept = "gptkit generate --model run/snapshots/step-000004"
    assert re.search(rf"^warning: overfitting.*{kept};", err, re.MULTILINE)
    card = Path("run/model/README.md").read_text()
    assert "| lowest validation loss | 2 at step 4 |" in card
    assert "\ngptkit generate --top-k 40 --model ../snapshots/step-000004  # near the lowest loss\n" in card
    assert "None" not in card
    assert main(["runs", "show", "run"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"best figure +bits/byte 1 at 4\n", shown)
    assert re.search(rf"best weights kept +step 4: {kept}\n", shown)


def test_the_beginning_of_the_text_shows_whether_it_was_decoded_correctly(capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.txt").write_bytes("\ufeff第一回\t甄士隐\n".encode() + TEXT.encode())
    for flags in (["--dry-run"], []):
        assert main([*arguments("run"), *flags]) == 0
        assert 'text begins: "第一回\\t甄士隐\\n0 green bottles, hangi"' in capsys.readouterr().err


def test_the_tokenizer_is_trained_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs = []
    for out in ("first", "second"):
        assert main([*arguments(out, tokenizer="bpe:300"), "--dry-run"]) == 0
        logs.append(capsys.readouterr().err)
    assert "entries, trained in" in logs[0]
    assert "tokenizer bpe:300: 300 entries, from the cache" in logs[1]


@pytest.mark.parametrize("model", ["tiny", "lstm.json"])
def test_the_same_command_gives_the_same_bytes_and_a_resumed_run_too(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("lstm.json").write_text('{"model_type": "gptkit-lstm", "n_positions": 64, "n_embd": 16, "n_inner": 24}')
    first = pretrain(capsys, "first", model=model, dropout=0.1)
    second = pretrain(capsys, "second", model=model, dropout=0.1)
    paths = {"run_dir", "model_dir"}
    assert {k: v for k, v in without_times(first).items() if k not in paths} == {
        k: v for k, v in without_times(second).items() if k not in paths
    }
    weights = Path("first/model/model.safetensors").read_bytes()
    assert Path("second/model/model.safetensors").read_bytes() == weights

    # The second run as if it had died after step 4: its result, model and last checkpoint were never written.
    Path("second/result.json").unlink()
    shutil.rmtree("second/model")
    shutil.rmtree("second/checkpoints/step-000006")
    resumed = pretrain(capsys, "second", model=model, dropout=0.1)
    assert resumed["resumed_from"] == 4
    assert Path("second/model/model.safetensors").read_bytes() == weights
    assert list(map(without_times, rows("second"))) == list(map(without_times, rows("first")))

    again = pretrain(capsys, "second", model=model, dropout=0.1)
    assert again == resumed  # a finished run prints its result again
    assert main(arguments("second", model=model, dropout=0.1, learning_rate=0.5)) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert "learning_rate was" in error["message"]


def weights(out: str) -> bytes:
    return Path(out, "model", "model.safetensors").read_bytes()


@pytest.mark.parametrize("schedule", ["constant", "openai-constant", "wsd"])
def test_a_finished_run_given_more_steps_ends_as_one_that_had_them_from_the_start(
    schedule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, object] = {"schedule": schedule, "warmup_steps": 2, "dropout": 0.1}
    pretrain(capsys, "whole", steps=12, **options)
    first = pretrain(capsys, "run", steps=6, **options)
    assert weights("run") != weights("whole")
    code = main(arguments("run", steps=12, **options))
    printed, log = capsys.readouterr()
    result = json.loads(printed)
    assert code == 0, log
    assert (result["steps"], result["tokens"]) == (12, 2 * first["tokens"])
    assert result["resumed_from"] == (5 if schedule == "wsd" else 6)
    assert weights("run") == weights("whole")
    assert ("rows, checkpoints and snapshots after step 5 are dropped" in log) == (schedule == "wsd")
    assert [row["step"] for row in rows("run")][-3:] == [9, 10, 12]
    same = [row for row in rows("run") if row["step"] in {row["step"] for row in rows("whole")}]
    losses = {row["step"]: row["loss"] for row in rows("whole")}
    assert {row["step"]: row["loss"] for row in same} == losses
    assert "steps: 12" in Path("run/config.yaml").read_text()
    assert pretrain(capsys, "run", steps=12, **options) == result  # finished again
    assert main(arguments("run", steps=6, **options)) == 2
    assert "steps was 12, now 6" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_wsd_run_keeps_the_checkpoint_before_its_decay(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(capsys, "run", steps=20, save_every=1, schedule="wsd")
    names = sorted(path.name for path in Path("run/checkpoints").iterdir())
    assert names == ["step-000016", "step-000019", "step-000020"]
    shutil.rmtree("run/checkpoints/step-000016")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file() and path.name != "run.lock"}
    assert main(arguments("run", steps=30, save_every=1, schedule="wsd")) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    assert (
        "step-000019: its learning rate was already decaying towards the end of a shorter run (a smaller --steps)"
        in message
    )
    after = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file() and path.name != "run.lock"}
    assert after == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"schedule": "cosine"}, "the cosine schedule depends on the total; only constant and wsd runs"),
        ({"schedule": "wsd", "recipe": "own.yaml"}, "wsd with decay_steps 99 decays from the first step on"),
    ],
)
def test_more_steps_are_refused_where_the_schedule_has_begun_to_end(
    options: dict[str, object], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.yaml").write_text("decay_steps: 99\n")
    result = pretrain(capsys, "run", **options)
    assert main(arguments("run", steps=12, **options)) == 2
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    assert "steps was 6, now 12" in message
    assert reason in message
    assert pretrain(capsys, "run", **options) == result


def test_an_unfinished_run_can_be_used_and_says_which_weights_it_gives(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(capsys, "run")
    greedy = ["generate", "1", "--greedy", "--max-new-tokens", "9", "--device", "cpu", "--json", "--model"]
    assert main([*greedy, "run"]) == 0
    expected = json.loads(capsys.readouterr().out)["samples"]
    Path("run/result.json").unlink()
    shutil.rmtree("run/snapshots/step-000006")
    for path in ("run", "run/checkpoints/step-000006"):  # whatever model/ may be half-way
        assert main([*greedy, path]) == 0
        printed, log = capsys.readouterr()
        assert json.loads(printed)["samples"] == expected
        line = "model run: the run is unfinished, using its weights of step 6 (run/checkpoints/step-000006)"
        assert log.count(line) == (path == "run")
    assert main([*greedy, "run/snapshots/step-000002", "--compile", "off"]) == 0
    assert main(["convert", "run", "exported", "--json"]) == 0
    assert Path("exported/model.safetensors").read_bytes() == weights("run")
    words = ["eval", "--model", "run", "--task", "perplexity", "--data", "text.txt", "--json"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(arguments("more", model="run", tokenizer="run")) == 0
    more = json.loads(capsys.readouterr().out)
    assert more["val_loss"] < rows("run")[-1]["val_loss"]


def test_a_snapshot_is_a_model_only_inside_its_run(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(capsys, "run")
    for elsewhere in ("step-000003", "mine"):
        shutil.copytree("run/snapshots/step-000003", elsewhere)
        assert main(["generate", "1", "--model", elsewhere]) == 2
        error = capsys.readouterr().err
        assert "a checkpoint or snapshot works only inside its run" in error
        assert "for a folder that can be moved: gptkit convert runs/" in error


def test_a_run_that_saved_nothing_yet_is_refused_and_so_is_a_damaged_snapshot(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pretrain(capsys, "run")
    path = Path("run/snapshots/step-000003/model.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["generate", "1", "--model", str(path.parent)]) == 2
    assert "the weights cannot be used: model.safetensors has" in capsys.readouterr().err
    Path("run/result.json").unlink()
    for path in Path("run").glob("*/step-*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    assert main(["generate", "1", "--model", "run"]) == 2
    assert "none of the run's saved weights are intact (run)" in capsys.readouterr().err
    for folder in ("snapshots", "checkpoints"):
        shutil.rmtree(f"run/{folder}")
    assert main(["generate", "1", "--model", "run"]) == 2
    assert "the run has not saved any weights yet (run)" in capsys.readouterr().err


def test_a_finished_run_without_its_model_says_so_and_its_snapshots_do(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(capsys, "run")
    shutil.rmtree("run/model")
    assert main(["generate", "1", "--model", "run"]) == 2
    assert "the run was finished, but its model/ is gone (run)" in capsys.readouterr().err
    assert main(["generate", "1", "--model", "run/snapshots/step-000003"]) == 0


def test_checkpoints_of_a_finished_run_of_an_earlier_version_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(capsys, "run")
    for name in ("start", "snapshots"):
        shutil.rmtree(f"run/{name}")
    assert main(["generate", "1", "--model", "run/checkpoints/step-000004"]) == 0
    words = ["eval", "--all-checkpoints", "run", "--task", "perplexity", "--data", "text.txt", "--json"]
    capsys.readouterr()
    assert main(words) == 0
    assert [one["step"] for one in json.loads(capsys.readouterr().out)["checkpoints"]] == [4, 6]


def test_a_run_of_an_earlier_version_goes_on_and_gets_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(capsys, "run")
    expected = weights("run")
    config = Path("run/config.yaml")
    assert "snapshots" not in config.read_text()  # a default is not written
    for name in ("start", "snapshots", "checkpoints/step-000006", "model"):
        shutil.rmtree(f"run/{name}")
    Path("run/result.json").unlink()
    for path in ("run", "run/checkpoints/step-000004"):
        assert main(["generate", "1", "--model", path]) == 2
        assert f"its run, whose start/ has the configuration and tokenizer ({path})" in capsys.readouterr().err
    assert pretrain(capsys, "run")["resumed_from"] == 4
    assert weights("run") == expected
    assert sorted(path.name for path in Path("run/snapshots").iterdir()) == ["step-000005", "step-000006"]
    config_of = json.loads(Path("run/start/config.json").read_text())
    assert json.loads(Path("run/model/config.json").read_text()).items() >= config_of.items()


def test_a_run_whose_text_has_moved_goes_on_with_its_new_place(capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(capsys, "run")
    Path("run/result.json").unlink()
    Path("text.txt").rename("moved.txt")
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("text.txt", "moved.txt"))
    assert main(["pretrain", "--resume", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resumed_from"] == 6


def test_a_short_run_evaluates_no_more_than_every_ten_steps(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.yaml").write_text(
        "model: tiny\ntokenizer: char\nsteps: 12\ntokens_per_step: 64\ncompile: off\nlog_every: 1\n"
    )
    assert main(["pretrain", "text.txt", "--recipe", "own.yaml", "--out", "run"]) == 0
    assert [row["step"] for row in rows("run") if "val_loss" in row] == [10, 12]


def test_an_unnamed_recipe_is_told_once_the_options_are_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "absent.txt"]) == 2
    assert capsys.readouterr().err.startswith("error:")
    assert main(["pretrain", "text.txt", "--tokens-per-step", "100"]) == 2
    assert capsys.readouterr().err.startswith("error:")
    assert main(["pretrain", "text.txt", "--tokenizer", "char", "--dry-run"]) == 0
    assert capsys.readouterr().err.startswith("recipe laptop: ")


def test_the_config_of_a_run_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    first = pretrain(capsys, "first")
    code = main(["pretrain", "--recipe", "first/config.yaml", "--out", "again", "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    again = json.loads(captured.out)
    assert again["val_loss"] == first["val_loss"]
    assert Path("again/model/model.safetensors").read_bytes() == Path("first/model/model.safetensors").read_bytes()


def test_a_model_directory_goes_on_with_its_own_tokenizer(capsys: pytest.CaptureFixture[str]) -> None:
    first = pretrain(capsys, "first")
    words = [word for word in arguments("more", model="first/model") if word not in ("--tokenizer", "char")]
    assert main(words) == 0
    more = json.loads(capsys.readouterr().out)
    assert more["val_loss"] < first["val_loss"]


def test_a_dry_run_tells_the_plan_and_writes_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments("run"), "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["tokens"] == 6 * 128
    assert plan["vocabulary"] == len(set(TEXT[: int(len(TEXT) * 0.9)])) + 2  # with <|endoftext|> and <unk>
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"validation": "0.9999"}, "fewer than one block"),
        ({"model": "gtp1"}, "gpt1"),
        ({"model": "no/such/dir"}, "no/such/dir"),
        ({"validation": "1.5"}, "--validation"),
    ],
)
def test_what_cannot_be_used_is_one_line_before_anything_is_written(
    options: dict[str, object], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments("run", **options)) == 2
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert words in " ".join(str(value) for value in error.values())
    assert error["fix"]
    assert [line for line in captured.err.splitlines() if line.startswith("error:")].__len__() == 1
    assert "Traceback" not in captured.err
    assert not Path("run").exists()


def write_gpt1_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "encoder_bpe_40000.json").write_text(json.dumps({"a</w>": 0, "\n</w>": 1}))
    (folder / "vocab_40000.bpe").write_text("#version: 0.2\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "nope"}, "neither a preset"),
        ({"resume": "never", "out": "taken"}, "--out is not empty"),
        ({"out": "taken", "seed": 3}, "seed was 0, now 3"),
        ({"out": "text.txt"}, "--out is a file"),
        ({"report_to": "wandb"}, "pip install 'gptkit[wandb]'"),
        ({"sequence_length": 4096}, "--sequence-length"),
        ({"tokens_per_step": 130}, "pass 128"),
        ({"tokenizer": "gpt1"}, "pip install 'gptkit[gpt1]'"),
        ({"tokenizer": "cache"}, "no tokenizer in this directory (cache)"),
        ({"tokenizer": "bpe:12"}, "257"),
        ({"precision": "fp16", "device": "cpu"}, "fp16"),
        ({"compile": "on"}, "--compile on"),
    ],
)
def test_what_needs_no_text_is_refused_before_any_is_read(
    options: dict[str, object], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gpt1_files(Path("gpt1"))
    Path("cache").mkdir()
    Path("taken").mkdir()
    header = CONFIG_HEADER.format(command="pretrain")
    Path("taken/config.yaml").write_text(
        f"{header}\ndata: [{Path('text.txt').absolute()}]\nmodel: tiny\ntokenizer: char\nsteps: 6\n"
        "tokens_per_step: 128\nsequence_length: 32\ncompile: off\n"
    )
    for package in ("ftfy", "wandb"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("gptkit.training.rules.find_compiler", lambda: None)
    monkeypatch.setattr("gptkit.pretrain.inputs.open_corpus", lambda *_, **__: pytest.fail("the text was read"))
    before = sorted(Path().rglob("*"))
    assert main(arguments(**{"out": "run", **options})) == 2  # type: ignore[arg-type]
    error = json.loads(capsys.readouterr().out)["error"]
    assert words in f"{error['message']} ({error['where']}) - {error['fix']}"
    assert sorted(Path().rglob("*")) == before


def test_weights_that_diverge_at_the_last_step_are_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments("run", steps=1, learning_rate=1e30)) == 5
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "diverged"
    assert error["where"] == "step 1"
    assert not Path("run/result.json").exists()
    assert not Path("run/checkpoints/step-000001").exists()
