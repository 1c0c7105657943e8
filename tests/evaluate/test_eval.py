"""`gptkit eval` as its users run it: scores with their protocols, baselines, gates, heads, checkpoints, bad input."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from generation_toy import write_model
from gptkit.cli.main import main
from gptkit.finetune.inputs import add_task_head, head_config
from gptkit.model.loading import load_model, save_model
from gptkit.system.processor import cpu_has_bf16
from gptkit.tasks.head_outputs import marker_ids
from gptkit.tasks.heads import output_labels
from gptkit.tasks.own import write_task
from gptkit.tasks.table import find_task
from gptkit.tasks.task import Task
from gptkit.text.tokenizers.loading import tokenizer_in

WORDS = ("citizen", "speak", "proceed", "further", "hear", "before", "first", "any", "we", "me")
REVIEWS = [(f"hear {word} {'proceed' if number % 2 else 'speak'}", number % 2) for number, word in enumerate(WORDS * 6)]
TASK = "format: classification\nlabels: [bad, good]\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random models with the same tokenizer, `one` and `two`, and `other` with another tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    for seed, (name, tokenizer) in enumerate((("one", "bpe:300"), ("two", "bpe:300"), ("other", "bpe:280"))):
        write_model(folder / name, tokenizer, seed=seed)
    return folder


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPTKIT_CACHE", str(tmp_path / "cache"))
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    rows = [{"text": f"First {word} before we {WORDS[number % 10]}"} for number, word in enumerate(WORDS * 4)]
    Path("lambada_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("text.txt").write_text("First Citizen: before we proceed any further, hear me speak\n" * 300)


def evaluate(capsys: pytest.CaptureFixture[str], model: Path, *words: str, code: int = 0) -> dict[str, Any]:
    found = main(["eval", "--model", str(model), *words, "--json"])
    captured = capsys.readouterr()
    assert found == code, captured.err
    result: dict[str, Any] = json.loads(captured.out)
    return result


SNAPSHOTS = [f"run/snapshots/step-00000{step}/model.safetensors" for step in (1, 2, 3, 4)]
WEIGHTS = [*SNAPSHOTS[:3], "run/model/model.safetensors"]
LAMBADA = ("--task", "lambada", "--data", "lambada_test.jsonl")
TEXT = ("--task", "perplexity", "--data", "text.txt")


def test_every_protocol_comes_with_its_n_error_and_data_and_the_same_run_writes_the_same_bytes(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate(capsys, models / "one", *LAMBADA, "--output", "first.json")
    assert result["schema"] == "gptkit.eval/1"
    assert {key.split("/")[1] for key in result["results"]} >= {"last-token", "last-word", "last-word-openai"}
    for one in result["results"].values():
        assert one["n"] == 40
        assert len(one["data_sha256"]) == 64
        assert one["metrics"]["accuracy"].keys() == {"value", "stderr", "higher_is_better"}
    evaluate(capsys, models / "one", *LAMBADA, "--output", "second.json", "--batch-size", "3")
    assert close(json.loads(Path("first.json").read_text()), json.loads(Path("second.json").read_text()))
    before = Path("second.json").read_bytes()
    evaluate(capsys, models / "one", *LAMBADA, "--output", "second.json", "--batch-size", "3")
    assert Path("second.json").read_bytes() == before


def close(first: Any, second: Any) -> bool:
    """Whether two values of JSON are alike but for rounding."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(close(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(close, first, second))
    return (
        bool(first == pytest.approx(second, rel=1e-5, abs=1e-6)) if isinstance(first, float | int) else first == second
    )


def test_the_table_shows_protocols_side_by_side_with_what_is_published(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--model", str(models / "one"), *LAMBADA]) == 0
    shown = capsys.readouterr()
    assert "GPT-2 117M 45.99%" in shown.out
    assert "last-word" in shown.out
    assert "40 examples, data " in shown.out
    assert "next: gptkit eval --model" in shown.err


def test_an_unchanged_model_passes_and_a_worse_one_fails_with_what_regressed_in_the_first_line(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(capsys, models / "one", *TEXT, "--output", "baseline.json")
    assert evaluate(capsys, models / "one", *TEXT, "--baseline", "baseline.json")["verdict"] == "pass"
    lower_the_baseline("baseline.json")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "steps.md")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    Path("steps.md").write_text("before\n")
    reports = ("--baseline", "baseline.json", "--junit", "out.xml", "--summary", "out.md")
    result = evaluate(capsys, models / "one", *TEXT, *reports, code=3)
    assert result["verdict"] == "fail"
    assert result["error"]["exit_code"] == 3
    assert any(one["verdict"] == "fail" for one in result["comparison"].values())
    assert ElementTree.parse("out.xml").getroot().find(".//failure") is not None
    assert Path("steps.md").read_text() == "before\n" + Path("out.md").read_text()
    assert main(["eval", "--model", str(models / "one"), *TEXT, *reports]) == 3
    shown = capsys.readouterr()
    assert shown.out.startswith("fail: perplexity/")
    assert "::error title=gptkit eval::fail" in shown.err
    assert "error: the gate failed: perplexity/" in shown.err
    assert "->" not in shown.err.splitlines()[-1]  # which does not repeat the headline


@pytest.mark.parametrize("json", [False, True])
def test_a_gate_fails_and_writes_its_reports_when_nobody_reads_what_it_prints(
    json: bool, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("suite.yaml").write_text("tasks: [{task: perplexity/documents, data: text.txt, minimum: 0.1}]")
    reader, writer = os.pipe()
    os.close(reader)
    try:
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, open(writer, "w", closefd=False))  # noqa: SIM115
        line = ["eval", "--model", str(models / "one"), "--suite", "suite.yaml", "--junit", "out.xml"]
        assert main([*line, *["--json"] * json]) == 3
    finally:
        os.close(writer)
    assert ElementTree.parse("out.xml").getroot().get("failures") == "1"


def lower_the_baseline(path: str) -> None:
    """Make a baseline whose model needed a tenth fewer nats for every item."""
    baseline = json.loads(Path(path).read_text())
    for key, items in baseline["items"].items():
        items["columns"]["nll"] = [0.9 * value for value in items["columns"]["nll"]]
        for name, figures in baseline["results"][key]["metrics"].items():
            figures["value"] = figures["value"] ** 0.9 if "perplexity" in name else 0.9 * figures["value"]
    Path(path).write_text(json.dumps(baseline))


def test_too_few_items_are_inconclusive_not_green_and_a_minimum_needs_no_baseline(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = (*LAMBADA[:2], "--data", "lambada_test.jsonl", "--limit", "5")
    evaluate(capsys, models / "one", *few, "--output", "few.json")
    assert evaluate(capsys, models / "two", *few, "--baseline", "few.json")["verdict"] == "inconclusive"
    Path("suite.yaml").write_text("tasks:\n  - {task: lambada/last-word, data: lambada_test.jsonl, minimum: 0.99}\n")
    result = evaluate(capsys, models / "one", "--suite", "suite.yaml", "--summary", "summary.md", code=3)
    assert "is required" in result["error"]["message"]
    assert result["error"]["fix"] == "see what changed in the model, or change `minimum` in suite.yaml"
    assert "| metric | value | floor | verdict |" in Path("summary.md").read_text()  # nothing of a baseline
    Path("suite.yaml").write_text("tasks:\n  - {task: lambada/last-word, data: lambada_test.jsonl, minimum: 45}\n")
    error = evaluate(capsys, models / "one", "--suite", "suite.yaml", code=2)["error"]
    assert error["fix"] == "write 0.45 for 45%"
    Path("few.json").write_text(Path("few.json").read_text().replace('"value":0.0', '"value":0.5'))
    evaluate(capsys, models / "two", *few, "--baseline", "few.json", code=2)  # figures that its items do not give


def test_what_cannot_be_compared_is_never_green(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(capsys, models / "one", *LAMBADA, "--output", "baseline.json")
    against = ("--baseline", "baseline.json")
    evaluate(capsys, models / "other", *LAMBADA, *against, code=4)  # last tokens of another tokenizer
    evaluate(capsys, models / "one", *LAMBADA, "--limit", "7", *against, code=4)  # other data
    evaluate(capsys, models / "one", *TEXT, *against, code=4)  # nothing in common
    if cpu_has_bf16():
        evaluate(capsys, models / "one", *LAMBADA, "--precision", "bf16", *against, code=4)  # another protocol
    baseline = json.loads(Path("baseline.json").read_text())
    Path("bare.json").write_text(json.dumps({key: baseline[key] for key in ("schema", "results")}))
    evaluate(capsys, models / "one", *LAMBADA, "--baseline", "bare.json", code=4)
    Path("torn.json").write_text(Path("baseline.json").read_text()[:-40])
    evaluate(capsys, models / "one", *LAMBADA, "--baseline", "torn.json", code=2)


def test_other_data_have_reports_and_keep_the_scores_that_output_asks_for(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(capsys, models / "one", *LAMBADA, "--output", "baseline.json")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "steps.md")
    words = (*LAMBADA, "--limit", "7", "--baseline", "baseline.json", "--junit", "out.xml")
    unscored = evaluate(capsys, models / "one", *words, code=4)
    again = f"gptkit eval --model {models / 'one'} {' '.join(LAMBADA)} --limit 7 --output baseline.json"
    assert again in unscored["error"]["fix"]
    assert (unscored["verdict"], "results" in unscored) == ("n/a", False)
    [error] = ElementTree.parse("out.xml").getroot().iter("error")
    assert "different data: 7 examples here" in error.get("message", "")
    assert "7 examples here" in Path("steps.md").read_text()
    result = evaluate(capsys, models / "one", *words, "--output", "scores.json", code=4)
    assert result["error"]["message"] == unscored["error"]["message"]
    written = json.loads(Path("scores.json").read_text())
    assert (written["results"], written["verdict"]) == (result["results"], "n/a")


def test_a_job_that_breaks_leaves_no_report_of_the_one_before(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("suite.yaml").write_text("tasks: [{task: lambada/last-word, data: gone.jsonl, minimum: 0.1}]")
    Path("target.xml").write_text("<testsuites/>")
    Path("out.xml").symlink_to("target.xml")
    Path("out.md").write_text("pass")
    reports = ("--junit", "out.xml", "--summary", "out.md")
    evaluate(capsys, models / "one", "--suite", "suite.yaml", *reports, code=2)
    assert not Path("target.xml").exists()
    assert not Path("out.md").exists()
    assert Path("out.xml").is_symlink()


def test_the_file_of_results_is_named_once(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(capsys, models / "one", *TEXT, "--output", "baseline.json")
    assert (
        main(["eval", "--model", str(models / "one"), *TEXT, "--baseline", "baseline.json", "--output", "o.json"]) == 0
    )
    assert capsys.readouterr().err.count("results and items: o.json") == 1


CHOICES = [{"context": f"First {word}", "question": "so", "choices": ["hear", word], "label": 1} for word in WORDS]


def test_choices_of_ones_own_are_scored_without_training(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(Path("test.jsonl"), CHOICES)
    Path("ends.yaml").write_text("format: multiple-choice\nsplits: {test: test.jsonl}\n")
    results = evaluate(capsys, models / "one", "--task", "ends.yaml")["results"]
    assert [(key, found["n"]) for key, found in results.items()] == [("ends/sum", 10), ("ends/mean", 10)]
    evaluate(capsys, models / "one", "--task", "ends.yaml", "--split", "test")
    error = evaluate(capsys, models / "one", "--task", "ends.yaml", "--split", "train", code=2)["error"]
    assert "no split 'train'" in error["message"]


def test_a_step_summary_that_cannot_be_written_is_a_warning_with_the_variable(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "no/such/folder.md")
    Path("suite.yaml").write_text("tasks: [{task: perplexity/documents, data: text.txt, minimum: 1000}]")
    assert main(["eval", "--model", str(models / "one"), "--suite", "suite.yaml"]) == 0
    assert "not appended to $GITHUB_STEP_SUMMARY (no/such/folder.md): No such file" in capsys.readouterr().err


def test_unknown_tokens_are_counted_alike_in_the_warning_and_in_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "char", "char")
    Path("text.txt").write_text("你好吗 one two\n\n" * 40, encoding="utf-8")
    words = ["eval", "--model", str(tmp_path / "char"), "--task", "perplexity/documents", "--data", "text.txt"]
    assert main(words) == 0
    shown = capsys.readouterr()
    [warned] = re.findall(r"([\d,]+ of [\d,]+) tokens \(", shown.err)
    told = re.search(r"([\d,]+) of the text's ([\d,]+) tokens", " ".join(shown.out.split()))
    assert told
    assert warned == f"{told[1]} of {told[2]}"


def test_what_does_not_fit_is_counted_said_and_never_wins(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The third ending is but a mark, which the harness takes out; the fourth is longer than the 24 positions."""
    row = {"activity_label": "Speaking", "ctx_a": "hear me", "ctx_b": "", "ctx": "hear me"}
    row |= {"endings": ["speak", "proceed", "[step]", "x" + " x" * 200], "label": 0}
    rows = [row, row | {"ctx": "hear me " + "x " * 40, "endings": ["speak", "proceed", "any", "me"]}]
    Path("hellaswag_val.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    words = ("--task", "hellaswag", "--data", "hellaswag_val.jsonl", "--output", "scores.json")
    assert main(["eval", "--model", str(models / "one"), *words]) == 0
    err = capsys.readouterr().err
    misfits = "hellaswag: 2 of 2 examples do not fit into the model's 24 positions"
    assert f"{misfits}: contexts are truncated on the left" in err
    assert "hellaswag: 1 texts cannot be scored and are never chosen: '' has no tokens (hellaswag_val.jsonl:1)" in err
    scores = json.loads(Path("scores.json").read_text())
    found = {key.split("/")[1]: (one["cut"], one["impossible"]) for key, one in scores["results"].items()}
    assert found == {"completion": (2, 0), "harness": (1, 1), "harness-norm": (1, 1)}
    for one in scores["items"].values():
        assert one["columns"]["prediction"][0] != 3
    for name in ("harness", "harness-norm"):
        assert scores["items"][f"hellaswag/{name}"]["columns"]["prediction"][0] in (0, 1)


def test_an_older_protocol_s_baseline_is_never_compared(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--task", "demo-cloze", "--limit", "20")
    evaluate(capsys, models / "one", *words, "--output", "new.json")
    assert evaluate(capsys, models / "one", *words, "--baseline", "new.json")["verdict"] == "pass"
    older = json.loads(Path("new.json").read_text())
    for one in older["results"].values():
        del one["settings"]["protocol_version"]
    Path("old.json").write_text(json.dumps(older))
    error = evaluate(capsys, models / "one", *words, "--baseline", "old.json", code=4)["error"]
    assert error["message"] == "demo-cloze/gain: protocol_version is 2 here but 1 in the baseline"


def test_two_processes_get_what_one_gets(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(capsys, models / "one", *LAMBADA, "--output", "one.json")
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m", "gptkit", "eval"]
    words = ["--model", str(models / "one"), *LAMBADA, "--device", "cpu", "--output", "two.json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert close(json.loads(Path("one.json").read_text()), json.loads(Path("two.json").read_text()))


def test_a_fine_tuned_model_is_scored_by_its_head_and_a_run_along_its_checkpoints(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("任务.yaml").write_text("name: 评论\n" + TASK.replace("bad, good", "差评, 好评"), encoding="utf-8")
    for split in ("train", "dev"):
        lines = [json.dumps({"text": text, "label": ("差评", "好评")[label]}) for text, label in REVIEWS]
        Path(f"{split}.jsonl").write_text("\n".join(lines))
    flags = "--epochs 2 --batch-size 10 --learning-rate 0.01 --optimizer adamw --precision fp32 --device cpu"
    words = ["finetune", "--task", "任务.yaml", "--model", str(models / "one"), "--out", "runs/评论"]
    assert main([*words, *flags.split(), "--json"]) == 0
    tuned = json.loads(capsys.readouterr().out)
    reports = ("--output", "分数.json", "--junit", "测试.xml", "--summary", "摘要.md")
    Path("套件.yaml").write_text("tasks: [{task: 任务.yaml, minimum: 0}]", encoding="utf-8")
    result = evaluate(capsys, Path("runs/评论"), "--suite", "套件.yaml", *reports)
    [(key, scored)] = result["results"].items()
    assert key == "评论/fine-tuned"
    for file in reports[1::2]:
        assert "评论/fine-tuned" in Path(file).read_text(encoding="utf-8")
    assert scored["metrics"]["accuracy"]["value"] == pytest.approx(tuned["metrics"]["accuracy"])
    assert "calibration_error" in scored["metrics"]
    assert scored["cut"] == 0
    Path("任务.yaml").rename("任务.txt")
    assert evaluate(capsys, Path("runs/评论"))["results"] == result["results"]  # its data lie where they lay
    assert main(["eval", "--all-checkpoints", "runs/评论", "--json"]) == 0
    assert all(one["results"].keys() == {key} for one in json.loads(capsys.readouterr().out)["checkpoints"])
    Path("任务.txt").rename("任务.yaml")
    Path("dev.jsonl").write_text(json.dumps({"text": "hear me " * 40, "label": "差评"}) + "\n")
    [cut] = evaluate(capsys, Path("runs/评论"), "--task", "任务.yaml")["results"].values()
    assert cut["cut"] == cut["n"] == 1
    evaluate(capsys, models / "one", "--task", "任务.yaml", code=2)
    assert main(["eval", "--task", "任务.yaml", "--json"]) == 0  # the newest run that can do it
    assert json.loads(capsys.readouterr().out)["model"].endswith("评论")


def test_a_run_is_evaluated_along_its_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--model tiny --tokenizer char --steps 4 --tokens-per-step 64 --sequence-length 32 --save-every 2"
    words = ["pretrain", "text.txt", *flags.split(), "--eval-every", "4", "--compile", "off", "--out", "run", "--json"]
    assert main(words) == 0
    capsys.readouterr()
    words = ["eval", "--task", "demo-cloze", "--limit", "20", "--all-checkpoints", "run", "--json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    warnings = [line for line in err.splitlines() if "warning" in line]
    assert [("do not fit" in line, "unknown" in line) for line in warnings] == [(True, False), (False, True)]
    result = json.loads(out)
    assert [one["step"] for one in result["checkpoints"]] == [1, 2, 3, 4]
    hashes = [hashlib.sha256(hashlib.sha256(Path(name).read_bytes()).digest()).hexdigest() for name in WEIGHTS]
    assert [one["model_sha256"] for one in result["checkpoints"]] == hashes
    metrics = [one["results"]["demo-cloze/sum"]["metrics"] for one in result["checkpoints"]]
    assert metrics[0] != metrics[3]
    assert Path(result["picture"]).read_bytes().startswith(b"\x89PNG")
    assert {len(curve) for curve in result["normalised"].values()} == {4}

    Path("run/result.json").unlink()  # an unfinished run has a curve too
    shutil.rmtree("run/model")
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert [Path(one["model"]) for one in result["checkpoints"]] == [Path(name).parent for name in SNAPSHOTS]
    assert [one["results"]["demo-cloze/sum"]["metrics"] for one in result["checkpoints"]] == metrics


def test_contamination_tells_what_stands_in_the_corpus(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["one two three four five six seven eight nine", "red green blue black white brown pink grey violet"]
    Path("lambada_test.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    Path("corpus.txt").write_text(f"and {rows[0].upper()}!")
    found = evaluate(capsys, models / "one", *LAMBADA, "--contamination", "corpus.txt")["contamination"]["lambada"]
    assert (found["ngrams"], found["found"], found["items_with_overlap"]) == (4, 2, 1)
    assert all(one["n"] == 1 for one in found["without_overlap"].values())


def test_text_without_spaces_is_scored_searched_and_never_passes_a_gate_on_its_words(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["时成和者名世行于生。", "会成常下把想法无被什！", "短。"]
    for name in ("wiki.test.raw", "corpus.txt"):
        Path(name).write_text("".join(f"{line}\n" for line in lines * 9), encoding="utf-8")
    Path("rows.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    Path("suite.yaml").write_text("tasks: [{task: wikitext2, data: wiki.test.raw, minimum: 1.0e+300}]")
    reports = ("--junit", "out.xml", "--output", "b.json", "--summary", "summary.md")
    result = evaluate(capsys, models / "one", "--suite", "suite.yaml", *reports, code=4)
    assert "| metric | verdict |" in Path("summary.md").read_text()
    assert result["error"]["kind"] == "nothing_comparable"
    assert "wikitext2/paper.word_perplexity cannot be gated: it is n/a: white space" in result["error"]["message"]
    metrics = result["results"]["wikitext2/paper"]["metrics"]
    assert {name for name, entry in metrics.items() if entry["value"] is None} == {"word_perplexity"}
    assert (result["verdict"], result["minimums"]["wikitext2/paper.word_perplexity"]["verdict"]) == ("n/a", "n/a")
    assert ElementTree.parse("out.xml").getroot().find(".//error") is not None
    words = ("--task", "wikitext2", "--data", "wiki.test.raw", "--baseline", "b.json")
    assert evaluate(capsys, models / "one", *words, code=4)["verdict"] == "n/a"
    words = ("--task", "perplexity", "--data", "rows.jsonl", "--contamination")
    found = evaluate(capsys, models / "one", *words, "corpus.txt")["contamination"]["perplexity"]
    assert (found["share"], found["items_with_overlap"], found["items_without_ngrams"]) == (1.0, 2, 1)
    assert found["words"] == "unicode"
    Path("rows.jsonl").write_text('{"text": "Too short to tell."}\n')
    found = evaluate(capsys, models / "one", *words, "text.txt")["contamination"]["perplexity"]
    assert (found["share"], found["items_with_overlap"], found["without_overlap"]) == (None, None, {})
    assert found["reason"] == "no text has 8 words in a row"


def test_a_report_goes_through_links_and_into_streams(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("target.json").write_text("old")
    Path("link.json").symlink_to("target.json")
    evaluate(capsys, models / "one", *TEXT, "--output", "link.json")
    assert Path("link.json").is_symlink()
    assert "results" in json.loads(Path("target.json").read_text())
    os.mkfifo("pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(Path("pipe").read_text)
        evaluate(capsys, models / "one", *TEXT, "--output", "pipe")
        assert json.loads(read.result(30)) == json.loads(Path("target.json").read_text())
    assert Path("pipe").is_fifo()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--task", "lambda"], "did you mean 'lambada'?"),
        (["--task", "lambada"], "lambada_test.jsonl"),
        (["--task", "lambada", "--data", "nowhere"], "no such"),
        (["--task", "rte", "--data", "."], "rte has no zero-shot protocol"),
        (["--task", "rte", "--data", "text.txt"], "gptkit finetune --task rte --data . "),  # reads two files
        (["--suite", "suite.yaml"], "did you mean 'lambada'? (suite.yaml:1)"),
        (["--suite", "suite.yaml", "--task", "lambada"], "leave one of them out"),
        (["--task", "lambada", "--data", ".", "--floor", "0.1"], "--baseline FILE"),
        (["--task", "lambada", "--data", ".", "--junit", "out.xml"], "no verdict to report"),
        (["--task", "lambada", "--data", "hf:x/y"], "not from the hub"),
        (["--task", "lambada", "--output", "a.json", "--baseline", "./a.json"], "overwrite --baseline"),
        ([*TEXT, "--output", "text.txt"], "overwrite --data"),
        ([*TEXT, "--output", "a", "--junit", "./a", "--baseline", "b"], "overwrite --junit"),
        (["--task", "lambada", "--data", ".", "--output", "no/such/folder.json"], "cannot be written"),
        (["--task", "lambada", "--data", ".", "--baseline", "b", "--summary", "/proc/x.md"], "/proc/x.md cannot be w"),
        (["--task", "lambada", "--data", ".", "--baseline", "none.json"], "none.json"),
        (["--task", "demo-cloze/sum", "--data", "nowhere"], "demo-cloze is made from Python's documentation"),
        (["--task", "perplexity/documents", *TEXT[2:], "--stride", "8"], "sliding-8, not perplexity/documents"),
    ],
)
def test_bad_command_lines_say_in_a_line_what_to_do(
    words: list[str], says: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("suite.yaml").write_text("tasks: [{task: lambda}]\n")
    error = evaluate(capsys, models / "one", *words, code=2)["error"]
    assert says in f"{error['message']} {error['fix']} ({error['where']})"


def tuned(folder: Path, base: Path, text: str) -> Task:
    """Write a model with a fresh head for the task of a YAML text, and return the task."""
    Path("mine.yaml").write_text(text, encoding="utf-8")
    task = find_task("mine.yaml")
    tokenizer = tokenizer_in(base)
    markers = marker_ids(base, len(tokenizer))
    head = head_config(task=task.name, format=task.format, labels=output_labels(task), markers=markers)
    save_model(add_task_head(load_model(base), head, seed=0), folder)
    tokenizer.save_pretrained(folder)
    write_task(folder, task)
    return task


PAIRS = [(f"hear {one}", f"{other} we speak") for one in WORDS for other in WORDS[:2]]
OWN_TASKS = {
    "labels that are numbers, in a .csv": (
        "format: classification\nlabels: [0, 1]\nmetrics: [accuracy, f1, matthews]\n",
        ".csv",
        [{"text": text, "label": label} for text, label in REVIEWS],
    ),
    "labels with spaces, in a .tsv with columns of its own": (
        "format: entailment\nlabels: ['does not follow', 负面, 'true']\n"
        "columns: {premise: a, hypothesis: b, label: c}\nsplits: {train: t.tsv, dev: dev.tsv}\n",
        ".tsv",
        [
            {"a": one, "b": other, "c": ("负面", "true", "does not follow")[i % 3]}
            for i, (one, other) in enumerate(PAIRS)
        ],
    ),
    "scores, in a .parquet": (
        "format: similarity\nscore_range: [-1, 1]\nmetrics: [spearman, pearson]\n",
        ".parquet",
        [{"first": one, "second": other, "label": i / 20} for i, (one, other) in enumerate(PAIRS)],
    ),
    "soft scores": (
        "format: similarity\ntarget: soft-score\n",
        ".jsonl",
        [{"first": one, "second": other, "label": i / 5} for i, (one, other) in enumerate(PAIRS)],
    ),
    "choices": (
        "format: multiple-choice\nchoices: 2\ncolumns: {context: story, choices: [right, wrong]}\n",
        ".jsonl",
        [{"story": one, "right": other, "wrong": one, "label": i % 2} for i, (one, other) in enumerate(PAIRS)],
    ),
}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        joint = "," if path.suffix == ".csv" else "\t"
        lines = [rows[0].keys(), *(row.values() for row in rows)]
        path.write_text("".join(joint.join(map(str, line)) + "\n" for line in lines), encoding="utf-8")


def test_a_runs_own_data_are_read_in_the_encoding_that_its_run_read(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(tmp_path / "run/model", models / "one", "format: classification\nlabels: [坏, 好]\n")
    Path("data").mkdir()
    rows = "".join(f"hear {word},{label}\r\n" for word in WORDS for label in ("坏", "好"))
    Path("data/dev.csv").write_bytes(f"text,label\r\n{rows}".encode("gb18030"))
    Path("run/config.yaml").write_text(f"task: {tmp_path}/mine.yaml\ndata: {tmp_path}/data\nencoding: gb18030\n")
    recorded = evaluate(capsys, tmp_path / "run")["results"]
    assert evaluate(capsys, tmp_path / "run", "--data", "data", "--encoding", "GBK")["results"] == recorded
    assert evaluate(capsys, tmp_path / "run", "--data", "data")["results"] == recorded
    Path("run/config.yaml").write_text(f"task: {tmp_path}/mine.yaml\ndata: {tmp_path}/data\n")
    error = evaluate(capsys, tmp_path / "run", "--data", "data", code=2)["error"]
    assert 'gb18030 ("citizen,坏' in error["message"]
    assert "pass --encoding" in error["fix"]


def test_the_folder_where_a_run_found_its_data_is_named_when_it_is_gone(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(tmp_path / "run/model", models / "one", "format: classification\nlabels: [a, b]\n")
    Path("run/config.yaml").write_text(f"task: {tmp_path}/mine.yaml\ndata: {tmp_path}/gone\n")
    error = evaluate(capsys, tmp_path / "run", code=2)["error"]
    assert (error["where"], error["fix"]) == (f"{tmp_path}/gone", "put it back, or pass --data DIR")


@pytest.mark.parametrize("kind", OWN_TASKS)
def test_a_fine_tuned_model_needs_no_yaml_wherever_it_is(
    kind: str, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, suffix, rows = OWN_TASKS[kind]
    task = tuned(tmp_path / "made", models / "one", text)
    Path("data").mkdir()
    write_rows(Path(f"data/dev{suffix}"), rows)
    by_file = evaluate(capsys, tmp_path / "made", "--task", "mine.yaml", "--data", "data")
    assert set(by_file["results"]["mine/fine-tuned"]["metrics"]) >= set(task.metrics)
    Path("mine.yaml").unlink()
    (tmp_path / "made").rename(tmp_path / "moved")
    for words in ((), ("--task", "mine")):
        found = evaluate(capsys, tmp_path / "moved", *words, "--data", "data")
        assert found["results"] == by_file["results"]
    Path("suite.yaml").write_text("tasks: [{task: mine, data: data, minimum: -1}]\n")
    assert evaluate(capsys, tmp_path / "moved", "--suite", "suite.yaml")["results"] == by_file["results"]
    error = evaluate(capsys, tmp_path / "moved", code=2)["error"]
    assert (error["where"], "pass --data DIR" in error["fix"]) == ("--data", True)


NUMBERS = "name: stars\nformat: classification\nlabels: [bad, good]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (NUMBERS.replace("bad, good", "good, bad"), "labels are ['good', 'bad'], but the model's are ['bad', 'good']"),
        (
            NUMBERS.replace("good", "good, fair"),
            "labels are ['bad', 'good', 'fair'], but the model's are ['bad', 'good']",
        ),
        (NUMBERS.replace("classification", "entailment"), "format is entailment, but the model's is classification"),
    ],
)
def test_a_file_that_does_not_fit_the_head_is_refused_with_the_difference(
    text: str, says: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(Path("model"), models / "one", NUMBERS)
    Path("other.yaml").write_text(text)
    error = evaluate(capsys, Path("model"), "--task", "other.yaml", "--data", ".", code=2)["error"]
    assert says in error["message"]
    Path("model/task.yaml").write_text(text)  # nor is a carried one that was changed
    error = evaluate(capsys, Path("model"), "--data", ".", code=2)["error"]
    assert says in error["message"]
    assert error["where"] == "model/task.yaml"


def test_two_files_that_describe_a_task_of_one_name_are_refused(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(Path("model"), models / "one", NUMBERS)
    Path("copy.yaml").write_text(NUMBERS)
    write_rows(Path("dev.jsonl"), [{"text": text, "label": ("bad", "good")[label]} for text, label in REVIEWS])
    error = evaluate(capsys, Path("model"), "--task", "mine.yaml", "--task", "copy.yaml", code=2)["error"]
    assert "the task 'stars' appears twice" in error["message"]


def test_scores_of_another_range_are_refused(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "name: likeness\nformat: similarity\nscore_range: [0, 5]\n"
    tuned(Path("model"), models / "one", text)
    Path("other.yaml").write_text(text.replace("5", "1"))
    error = evaluate(capsys, Path("model"), "--task", "other.yaml", "--data", ".", code=2)["error"]
    assert "score_range is [0.0, 1.0], but the model's is [0.0, 5.0]" in error["message"]


def test_a_text_for_a_fine_tuned_model_is_not_taken_for_its_task_s_data(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(Path("model"), models / "one", NUMBERS)
    error = evaluate(capsys, Path("model"), "--data", "text.txt", code=2)["error"]
    assert error["fix"] == "to score the text, add --task perplexity"


def test_a_model_that_does_not_describe_its_task_is_scored_on_no_other(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(Path("model"), models / "one", NUMBERS)
    Path("model/task.yaml").unlink()  # as models of earlier versions are
    for words in ((), ("--task", "stars")):
        error = evaluate(capsys, Path("model"), *words, "--data", "text.txt", code=2)["error"]
        assert "fine-tuned on stars, which its directory does not describe" in error["message"]
        assert error["fix"] == "pass the task's file: --task FILE.yaml"
    write_rows(Path("dev.jsonl"), [{"text": text, "label": ("bad", "good")[label]} for text, label in REVIEWS])
    assert "stars/fine-tuned" in evaluate(capsys, Path("model"), "--task", "mine.yaml")["results"]
    assert "perplexity/documents" in evaluate(capsys, Path("model"), *TEXT)["results"]  # where it is asked for
    error = evaluate(capsys, Path("model"), "--task", "star", code=2)["error"]
    assert error["fix"] == "did you mean 'stars'?"
