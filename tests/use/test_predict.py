"""`gptkit predict`: what finetune --predict says of the same rows; resumed, cut as in training, in flat memory."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from generation_toy import POSITIONS, TEXT
from gpt_toy import toy
from gptkit.cli.main import main
from gptkit.errors import InputError
from gptkit.tasks.own import read_task
from gptkit.tasks.reading import unlabelled_examples
from gptkit.text.tokenizers.kinds import train_tokenizer

LONG = "proceed any further, hear me speak " * 3
WORDS = ["hear me", "speak further", LONG, "First Citizen", "before we proceed", "any further citizen"]
HEADERS = {  # the columns of a format's .csv
    "classification": ["text"],
    "entailment": ["premise", "hypothesis"],
    "similarity": ["first", "second"],
    "multiple-choice": ["context", "question", "choice1", "choice2", "choice3"],
}
TASKS = {  # name -> (format, the YAML's labels, labels of rows, the model's pre_norm)
    "texts": ("classification", "labels: [no, yes, unknown]", ["no", "yes", "unknown"], True),
    "pairs": ("entailment", "labels: [no, yes]", ["no", "yes"], False),
    "likeness": ("similarity", "score_range: [0, 5]", ["0.5", "4.25"], True),
    "soft": ("similarity", "{score_range: [0, 5], target: soft-score}", ["1", "4.5"], False),
    "choices": ("multiple-choice", "choices: 3", ["0", "1", "2"], False),
}


@dataclass(frozen=True)
class Tuned:
    """A finetune run, the file of new rows that it predicted, and its predictions."""

    run: Path
    format: str
    rows: Path

    def predicted(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run / "predictions-new.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tuned]:
    """Return the finetune run of a task, made when it is first asked for."""
    place = tmp_path_factory.mktemp("tuned")
    made: dict[str, Tuned] = {}

    def make(name: str) -> Tuned:
        if name not in made:
            made[name] = finetuned(place / name, name)
        return made[name]

    return make


def finetuned(folder: Path, name: str) -> Tuned:
    format, labels, values, pre_norm = TASKS[name]
    header = HEADERS[format]
    folder.mkdir()
    for split, count in (("train", 12), ("dev", 6), ("new", 9)):
        with open(folder / f"{split}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*header, *["label"] * (split != "new")])
            for row in range(count):
                texts = [f"{WORDS[(row + 2 * number) % len(WORDS)]} {split}" for number in range(len(header))]
                writer.writerow([*texts, *[values[row % len(values)]] * (split != "new")])
    settings = labels.strip("{}").replace(", target", "\ntarget") if labels.startswith("{") else labels
    splits = "splits: {train: train.csv, dev: dev.csv, new: new.csv}"
    (folder / "own.yaml").write_text(f"name: {name}\nformat: {format}\n{settings}\n{splits}\n")
    tokenizer = train_tokenizer("bpe:300", [TEXT])
    toy(pre_norm, vocab_size=len(tokenizer), n_positions=POSITIONS).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    line = f"finetune --task {folder}/own.yaml --model {folder}/model --epochs 1 --batch-size 4 --out {folder}/run"
    assert main([*shlex.split(line), "--device", "cpu", "--precision", "fp32", "--predict", "new"]) == 0
    return Tuned(folder / "run", format, folder / "new.csv")


def predicted(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, Any]]:
    """Return the lines that a command writes into a pipe."""
    capsys.readouterr()
    assert main(["predict", *map(str, words), "--device", "cpu"]) == 0, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("name", TASKS)
def test_the_answers_are_those_of_finetunes_predictions(
    name: str, tuned: Callable[[str], Tuned], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tuned(name)
    results = predicted(capsys, "--inputs", run.rows, "--model", run.run)
    theirs = run.predicted()
    assert len(results) == len(theirs) == 9
    for result, other in zip(results, theirs, strict=True):
        fields = {"context", "question", "choices"} if name == "choices" else {*HEADERS[run.format]}
        assert {field: result[field] for field in fields} == {field: other[field] for field in fields}
        if "value" in result:
            assert result["value"] == pytest.approx(other["prediction"], abs=1e-5)
            assert "label" not in result
            continue
        assert result["label"] == str(other["prediction"])
        assert [*result["probabilities"].values()] == pytest.approx(other["probabilities"], abs=1e-6)
        assert [*result["probabilities"]] == other.get("labels", ["0", "1", "2"])
    assert any(result["truncated"] for result in results)
    assert not all(result["truncated"] for result in results) or name == "choices"


@pytest.mark.parametrize("name", TASKS)
def test_texts_are_the_fields_in_order(
    name: str, tuned: Callable[[str], Tuned], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tuned(name)
    with open(run.rows, newline="") as file:
        _, first, *_ = csv.reader(file)
    (result,) = predicted(capsys, *first, "--model", run.run)
    expected = predicted(capsys, "--inputs", run.rows, "--model", run.run)[0]
    for key, value in expected.items():
        assert result[key] == (value if isinstance(value, str | bool | list) else pytest.approx(value, abs=1e-5)), key


def test_a_choice_needs_no_question(tuned: Callable[[str], Tuned], capsys: pytest.CaptureFixture[str]) -> None:
    (result,) = predicted(capsys, "hear", "", "me", "speak", "further", "--model", tuned("choices").run)
    assert (result["question"], result["choices"]) == ("", ["me", "speak", "further"])


def test_all_kinds_of_files_and_a_column_of_labels(
    tuned: Callable[[str], Tuned], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tuned("texts").run
    files = {
        "a.txt": "hear me\n\nspeak\n",
        "a.csv": "text,label\nhear me,yes\nspeak,what is not a label\n",
        "a.tsv": "text\nhear me\nspeak\n",
        "a.jsonl": '{"text": "hear me", "id": 1}\n{"text": "speak", "id": 2}\n',
    }
    found = []
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        found.append(predicted(capsys, "--inputs", tmp_path / name, "--model", model))
    assert found == [found[0]] * len(files)
    assert [result["text"] for result in found[0]] == ["hear me", "speak"]
    together = predicted(capsys, "--inputs", tmp_path / "a.txt", "--model", model, "--batch-size", "1")
    for one, other in zip(together, found[0], strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)
    assert main(["predict", "--inputs", str(tmp_path / "a.txt"), "--model", str(model), "--json"]) == 0
    assert [one["text"] for one in json.loads(capsys.readouterr().out)["results"]] == ["hear me", "speak"]


def test_columns_of_other_things_are_ignored(
    tuned: Callable[[str], Tuned], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """New rows come with dates and names, and not all have a label."""
    files = {
        "a.csv": "index,stars,text,label\n7,5,hear me,\n8,,speak,yes\n",
        "a.jsonl": '{"label": "yes", "text": "hear me"}\n{"text": "speak", "tags": ["a"]}\n',
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        results = predicted(capsys, "--inputs", tmp_path / name, "--model", tuned("texts").run)
        assert [result["text"] for result in results] == ["hear me", "speak"]


def test_columns_have_the_names_of_the_fields_or_those_in_the_tasks_yaml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text(
        "name: own\nformat: classification\nlabels: [no, yes]\ncolumns: {text: review, label: stars}\n"
        "splits: {train: train.csv, dev: dev.csv}\n"
    )
    task, rows = read_task(tmp_path / "own.yaml"), tmp_path / "rows.csv"
    for header in ("review", "text", "text,review,,", "text,label,review"):
        rows.write_text(f"{header}\n{','.join(['hear me'] * (1 + header.count(',')))}\n")
        assert [example.fields for example in unlabelled_examples(task, rows)] == [("hear me",)]
    for header, fix in (("Review", "rename 'Review' to review"), ("x", "name them review in the first line")):
        rows.write_text(f"{header}\nhear me\n")
        with pytest.raises(InputError, match="no column 'review'") as raised:
            [*unlabelled_examples(task, rows)]
        assert raised.value.fix == fix


def test_a_question_is_not_ignored_because_the_first_row_has_none(
    tuned: Callable[[str], Tuned], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row, rows = {"context": "hear", "choices": ["me", "us", "no"]}, tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(row) + "\n" + json.dumps(row | {"question": "who"}) + "\n")
    model = str(tuned("choices").run)
    capsys.readouterr()
    assert main(["predict", "--inputs", str(rows), "--model", model, "--device", "cpu"]) == 2
    assert "rows.jsonl:2" in capsys.readouterr().err


def test_what_is_cut_is_marked_and_counted(
    tuned: Callable[[str], Tuned], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = tmp_path / "a.txt"
    inputs.write_text(f"hear\n{LONG}\n{LONG * 2}\n")
    line = ["predict", "--inputs", str(inputs), "--model", str(tuned("texts").run), "--device", "cpu"]
    capsys.readouterr()  # what fine-tuning printed
    assert main(line) == 0
    printed = capsys.readouterr()
    assert [json.loads(row)["truncated"] for row in printed.out.splitlines()] == [False, True, True]
    for _ in range(2):  # also once all are done
        assert "truncated 2 of 3 examples" in printed.err
        assert main([*line, "--output", str(tmp_path / "out.jsonl")]) == 0
        printed = capsys.readouterr()


def test_an_interrupted_file_is_resumed_whatever_write_was_cut(
    tuned: Callable[[str], Tuned], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, output = tuned("pairs"), tmp_path / "out.jsonl"
    line = ["predict", "--inputs", str(run.rows), "--output", str(output), "--model", str(run.run), "--device", "cpu"]
    monkeypatch.setattr("gptkit.use.predict.AT_ONCE", 4)
    assert main(line) == 0
    content = output.read_bytes()
    lines = [json.loads(row) for row in content.splitlines()]
    plain = predicted(capsys, "--inputs", run.rows, "--model", run.run)
    assert [{key: row[key] for key in row if key != "settings"} for row in lines] == plain
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    for length in (0, 40, *ends[:-1], len(content) // 2, len(content) - 1):
        output.write_bytes(content[:length])
        assert main(line) == 0
        assert output.read_bytes() == content
    monkeypatch.setattr("gptkit.use.predict._open", lambda *_: pytest.fail("a finished file needs no model"))
    capsys.readouterr()
    assert main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"] == plain


def test_changed_rows_are_predicted_again(
    tuned: Callable[[str], Tuned], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, output = tmp_path / "a.txt", tmp_path / "out.jsonl"
    line = ["predict", "--inputs", str(inputs), "--output", str(output), "--model", str(tuned("texts").run)]
    for texts in ("hear\nme\nspeak\n", "hear\nus\nspeak\n", "hear\n"):
        inputs.write_text(texts)
        assert main(line) == 0
        assert [json.loads(row)["text"] for row in output.read_text().splitlines()] == texts.split()


@pytest.mark.parametrize("content", ['{"text": "hear"}\n', "text\n", '{"settings": "a", "truncated": false}\n'])
def test_another_file_is_never_overwritten(
    content: str, tuned: Callable[[str], Tuned], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs, output = tmp_path / "a.txt", tmp_path / "out.jsonl"
    inputs.write_text("hear\n")
    output.write_text(content)
    line = ["predict", "--inputs", str(inputs), "--output", str(output), "--model", str(tuned("texts").run)]
    assert main(line) == 2
    assert output.read_text() == content


BAD = {
    "": "no text to label",
    "hear me": "pass TEXT, each as one argument in quotes",
    "''": "the text is empty",
    "hear --inputs good.txt": "--inputs provides the examples",
    "hear --output out.jsonl": "--output is only for --inputs",
    "--inputs good.txt --output out.csv": "must be .jsonl",
    "--inputs good.jsonl --output good.jsonl": "would overwrite the inputs",
    "--inputs nofile.csv": "file not found",
    "--inputs good.doc": "neither .txt nor one of",
    "--inputs empty.txt": "no example in this file",
    "--inputs good.txt --output folder/out.jsonl": "its folder does not exist",
    "--inputs good.txt --output folder.jsonl": "it is a folder",
    "--inputs other.csv": "name them text in the first line",
    "--inputs blank.csv": "blank.csv:3",
    "--inputs keys.jsonl": "keys.jsonl:2",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_refused_in_one_line(
    line: str,
    tuned: Callable[[str], Tuned],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tuned("texts").run
    monkeypatch.chdir(tmp_path)
    files = {
        "good.txt": "hear\n",
        "good.jsonl": '{"text": "hear"}\n',
        "good.doc": "hear\n",
        "empty.txt": "\n",
        "other.csv": "a,b\nhear,me\n",
        "blank.csv": "text,label\nhear,yes\n ,no\nme,yes\n",
        "keys.jsonl": '{"text": "a"}\n{"prompt": "a"}\n',
    }
    for name, content in files.items():
        Path(name).write_text(content)
    Path("folder.jsonl").mkdir()
    capsys.readouterr()
    assert main(["predict", *shlex.split(line), "--model", str(model), "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert BAD[line] in printed.err
    assert not Path("out.jsonl").exists()


def test_pairs_need_both_texts_and_a_language_model_has_no_labels(
    tuned: Callable[[str], Tuned], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tuned("pairs").run
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("hear\n")
    capsys.readouterr()
    for words, message in (
        (["hear", "--model", run], "PREMISE HYPOTHESIS"),
        (["--inputs", "a.txt", "--model", run], "premise, hypothesis"),
        (["hear", "--model", run.parent / "model"], "not fine-tuned"),
        (["hear", "me", "--model", tuned("choices").run], "CONTEXT QUESTION CHOICE1 CHOICE2 CHOICE3"),
        (["hear"], "no finished finetune run under ./runs"),
    ):
        assert main(["predict", *map(str, words)]) == 2
        assert message in capsys.readouterr().err


def test_the_newest_finetune_run_is_the_default(
    tuned: Callable[[str], Tuned], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tuned("texts").run, "runs/tuned")
    shutil.copytree(tuned("texts").run, "runs/pretrained")
    path = Path("runs/pretrained/result.json")
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"command": "pretrain", "finished_at": "2999-01-01T00:00Z"})
    )
    capsys.readouterr()
    assert main(["predict", "hear"]) == 0
    assert "model runs/tuned: the newest finished finetune run" in capsys.readouterr().err


def test_ten_thousand_lines_take_the_memory_of_a_thousand(tuned: Callable[[str], Tuned], tmp_path: Path) -> None:
    script = "import resource, sys; from gptkit.cli.main import main; code = main(sys.argv[1:]); "
    script += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    peaks = []
    for count in (1_000, 10_000):
        inputs, output = tmp_path / "a.txt", tmp_path / f"{count}.jsonl"
        inputs.write_text("".join(f"before we proceed {number}\n" for number in range(count)))
        words = ["--inputs", inputs, "--output", output, "--model", tuned("texts").run, "--device", "cpu"]
        line = [sys.executable, "-c", script, "predict", *map(str, words)]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        assert output.read_bytes().count(b"\n") == count
        peaks.append(int(done.stderr.splitlines()[-1]))
    assert peaks[1] - peaks[0] < 8_000, peaks
