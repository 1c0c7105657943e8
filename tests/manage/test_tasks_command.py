"""gptkit tasks, and tasks show: what it shows of an example is what fine-tuning and eval compute with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from generation_toy import TEXT
from gptkit.cli.main import main
from gptkit.console import Console
from gptkit.finetune.inputs import prepare_inputs
from gptkit.finetune.options import FinetuneOptions
from gptkit.tasks.table import EVALUATIONS, TASKS


def test_every_task_is_listed_with_what_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tasks"]) == 0
    out, err = capsys.readouterr()
    assert all(len(line) <= 80 for line in out.partition("\ntask  ")[0].splitlines())
    lines = {name: [line for line in out.splitlines() if line.split()[0] == name] for name in TASKS}
    assert all(len(found) == 2 + (name in EVALUATIONS) for name, found in lines.items())
    for row in EVALUATIONS.values():
        assert re.search(rf"^{row.name} +{', '.join(protocol.name for protocol in row.protocols)}$", out, re.MULTILINE)
    for part in ("similarity", "pearson", "5,749", "1,500", "1,379", "82.0", "gluebenchmark.com"):
        assert part in " ".join(lines["stsb"])
    assert err == "next: gptkit pretrain\n"  # which finetune needs first


def test_json_has_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["tasks"]}
    assert list(rows) == list(TASKS)
    assert rows["rte"]["sizes"] == {"train": 2490, "dev": 277, "test": 3000}
    assert rows["rte"]["published"]["no_pretraining"] == 53.8
    assert (rows["rte"]["hub"], rows["demo-cloze"]["hub"]) == ("hf:nyu-mll/glue:rte", None)


def known(text: str) -> str:
    """Return a text with what the model's characters make of it."""
    return "".join(char if char in TEXT else "<unk>" for char in text)


@pytest.mark.parametrize("name", ["demo-classification", "demo-entailment", "demo-similarity", "demo-cloze"])
def test_an_example_is_shown_as_the_batch_that_fine_tuning_trains_on(
    name: str, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = FinetuneOptions(task=name, model=str(model_folder))
    inputs = prepare_inputs(options, Console())
    index = int(np.argmin(inputs.train.tokens))  # the shortest example
    capsys.readouterr()
    assert main(["tasks", "show", name, "--model", str(model_folder), "--index", str(index), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    sequences = shown["sequences"]
    batch = inputs.train.select(np.array([index]))
    ids = [row[: end + 1].tolist() for row, end in zip(batch["input_ids"][0], batch["extract"][0], strict=True)]
    assert [sequence["ids"] for sequence in sequences] == ids

    markers = ("<start>", "<delimiter>", "<extract>")
    named = [[piece for piece in sequence["pieces"] if piece in markers] for sequence in sequences]
    assert named == [["<start>", "<extract>"] if name == "demo-classification" else [*markers]] * len(sequences)
    assert all(len(sequence["pieces"]) == len(sequence["ids"]) for sequence in sequences)
    if name == "demo-similarity":
        first, second = ("".join(sequence["pieces"]) for sequence in sequences)
        left, right = first.removeprefix("<start>").removesuffix("<extract>").split("<delimiter>")
        assert second == f"<start>{right}<delimiter>{left}<extract>"
        assert known(shown["fields"]["first"]).startswith(left)
        assert known(shown["fields"]["second"]).startswith(right)
        assert shown["label"] in ("same", "different")

    # The auxiliary loss is that of the supervised tokens: their mean over each sequence, then over the sequences.
    model = inputs.model(options).eval()
    with torch.no_grad():
        output = model(**{key: torch.from_numpy(value) for key, value in batch.items()}, lm_coef=0.5)
        losses = []
        for sequence in sequences:
            row = torch.tensor([sequence["ids"]])
            logits = model.lm_head(model.transformer(input_ids=row).last_hidden_state)[0, :-1]
            nll = torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="none")
            assert not sequence["supervised"][0]
            losses.append(nll[torch.tensor(sequence["supervised"][1:])].mean())
    assert torch.stack(losses).mean().item() == pytest.approx(output.lm_loss.item(), rel=1e-5)


def test_a_protocol_of_eval_shows_the_tokens_that_it_scores(
    model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", "show", "demo-cloze/sum", "--model", str(model_folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    choices = shown["fields"]["choices"]
    assert len(shown["sequences"]) == len(choices)
    for sequence, choice in zip(shown["sequences"], choices, strict=True):
        pairs = zip(sequence["pieces"], sequence["supervised"], strict=True)
        scored = "".join(piece for piece, is_scored in pairs if is_scored)
        assert scored == known(f" {choice}")
        assert sequence["protocols"] == ["sum"]
    assert main(["tasks", "show", "demo-cloze/sum", "--model", str(model_folder)]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^sequence 2 of 2: \d+ tokens, \d+ of them scored by eval's sum", out, re.MULTILINE)
    assert err.endswith(f"next: gptkit eval --task demo-cloze/sum --model {model_folder}\n")


def test_ones_own_task_shows_what_is_cut(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text("format: entailment\nlabels: [no, yes]\n")
    for split in ("train", "dev"):
        row = {"premise": "hear " * 9, "hypothesis": "so", "label": "yes"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row), encoding="utf-8")
    line = ["tasks", "show", str(tmp_path / "own.yaml"), "--split", "dev", "--model", str(model_folder)]
    assert main(line) == 0
    out, _ = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].endswith(f"example 0 of dev ({tmp_path / 'dev.jsonl'}:1)")
    assert "24 tokens, 23 of them predicted by the auxiliary LM loss; cut to fit the model: premise" in out
    ids = [re.fullmatch(r"(\(?)\d+\)? (.+)", line) for line in lines[-24:]]
    assert [match[1] for match in ids if match] == ["(", *[""] * 23]
    assert "".join(match[2] for match in ids if match) == "<start>" + ("hear␣" * 9)[:19] + "<delimiter>so<extract>"
    assert main([*line, "--index", "1"]) == 2
    assert "there are 1 examples (--index) - pass 0 to 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["show", "demo-clozes"], "no task is called 'demo-clozes' (NAME) - did you mean 'demo-cloze'?"),
        (
            ["show", "demo-cloze", "--split", "x"],
            "demo-cloze has no split 'x' (--split) - choose one of train, dev, test",
        ),
        (["show", "demo-cloze/sum", "--split", "dev"], "demo-cloze/sum has no split 'dev' (--split) - leave it out"),
        (["--json", "show", "demo-cloze"], "write gptkit tasks show ... --json"),
        (["shwo"], "unknown command 'shwo' (gptkit tasks)"),
        (["--model", "x"], "write it after a command: gptkit tasks COMMAND --model"),
    ],
)
def test_a_wrong_command_line_is_refused(
    line: list[str], message: str, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(model_folder)] if line[0] == "show" else []
    assert main(["tasks", *line, *model]) == 2
    assert message in capsys.readouterr().err


def test_without_a_model_the_fields_of_an_example_are_shown_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"activity_label": "Cooking", "ctx_a": "A", "ctx_b": "b", "ctx": "A b", "endings": ["c"] * 4, "label": 2}
    Path("hellaswag_val.jsonl").write_text(json.dumps(row))
    assert main(["tasks", "show", "hellaswag", "--data", ".", "--json"]) == 0
    out, err = capsys.readouterr()
    shown = json.loads(out)
    fields = {"activity": "Cooking", "context a": "A", "context b": "b", "context": "A b", "ending": ["c"] * 4}
    assert (shown["fields"], shown["sequences"], shown["model"]) == (fields, [], None)
    assert "no token sequences without a model" in err
