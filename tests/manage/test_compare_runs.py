"""`gptkit runs compare`: what differs, with intervals where there are any, and one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gptkit.cli.main import main
from gptkit.report.plots import draw_runs, save
from run_toy import FINE_TUNED, PRETRAINED, make_run

ROOT = Path("runs")
PNG = b"\x89PNG\r\n"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was drawn last."""
    found: dict[str, Any] = {}

    def note(curves: Any, path: Path, **more: Any) -> None:
        found.clear()
        found.update(curves=curves, **more)
        path.write_bytes(PNG)

    monkeypatch.setattr("gptkit.manage.compare_runs.draw_runs", note)
    return found


def compare(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[dict[str, Any], str]:
    found = main(["runs", "compare", *words, "--json"])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return json.loads(captured.out), captured.err


def test_only_options_that_differ_are_shown(capsys: pytest.CaptureFixture[str], drawn: dict[str, Any]) -> None:
    make_run(ROOT / "one", result=PRETRAINED, seed=0, learning_rate=0.1)
    make_run(ROOT / "two", result=PRETRAINED | {"bits_per_byte": 1.5}, seed=0, learning_rate=0.2, dropout=0.1)
    result, errors = compare(capsys, "one", "two")
    assert result["options"] == {"learning_rate": [0.1, 0.2], "dropout": [None, 0.1]}
    assert [figure["value"] for figure in result["metrics"]["bits_per_byte"]] == [2.0, 1.5]
    assert result["metrics"]["val_loss"] == [{"value": 2.5, "interval": None}] * 2
    assert [row["path"] for row in result["runs"]] == ["runs/one", "runs/two"]
    assert "warning" not in errors
    assert main(["runs", "compare", "one", "two"]) == 0
    out = capsys.readouterr().out
    assert "unset" in out
    assert "seed" not in out


def test_options_that_differ_also_look_different(capsys: pytest.CaptureFixture[str], drawn: dict[str, Any]) -> None:
    make_run(ROOT / "one", learning_rate=0.00012345, data=["a.txt"])
    make_run(ROOT / "two", learning_rate=0.00012346, data=["a.txt", "b.txt"])
    assert main(["runs", "compare", "one", "two"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["learning_rate", "0.00012345", "0.00012346"] in rows
    assert ["data", "a.txt", "a.txt,", "b.txt"] in rows


@pytest.mark.parametrize(("by", "at"), [("steps", [10, 20]), ("tokens", [100, 200]), ("seconds", [5.0, 10.0])])
def test_losses_stand_over_steps_tokens_or_seconds(
    by: str, at: list[float], capsys: pytest.CaptureFixture[str], drawn: dict[str, Any]
) -> None:
    for name in ("one", "two"):
        make_run(ROOT / name)
    compare(capsys, "one", "two", "--by", by)
    assert drawn["xlabel"] == by
    [seed] = drawn["curves"]["one"]
    assert seed["val_loss"] == [(at[0], 5.0), (at[1], 2.5)]
    assert [loss for _, loss in seed["loss"]] == [12.0, 6.0, 4.0, 3.0]
    assert drawn["ylabel"] == "loss (nats per token)"


def test_runs_with_different_tokenizers_are_compared_in_bits_per_byte(
    capsys: pytest.CaptureFixture[str], drawn: dict[str, Any]
) -> None:
    for name in ("one", "two"):
        make_run(ROOT / name, result=PRETRAINED | {"split_sha256": name}, tokenizer_json=json.dumps(name))
    _, errors = compare(capsys, "one", "two")
    assert "the tokenizers differ, so losses per token are not comparable: compare bits per byte" in errors
    assert "the runs were not validated on the same text" in errors
    assert (drawn["ylabel"], [*drawn["lines"]]) == ("bits per byte", ["bits_per_byte"])
    assert drawn["curves"]["one"] == [{"bits_per_byte": [(10, 4.0), (20, 2.0)]}]


def test_intervals_are_those_over_seeds_and_of_stored_evaluations(
    capsys: pytest.CaptureFixture[str], drawn: dict[str, Any]
) -> None:
    study = make_run(ROOT / "study/seed-0", "finetune", result=FINE_TUNED, lm_coef=0.5).parent
    make_run(study / "seed-1", "finetune", result=FINE_TUNED, lm_coef=0.5)
    (study / "config.yaml").write_text((study / "seed-0/config.yaml").read_text() + "seeds: 2\n")
    (study / "result.json").write_text(json.dumps({**FINE_TUNED, "interval": {"accuracy": [0.7, 0.8]}}))
    single = make_run(ROOT / "single", "finetune", result=FINE_TUNED, lm_coef=0.5)
    metric = {"value": 0.5, "stderr": 0.1, "higher_is_better": True}
    scores = {"schema": "gptkit.eval/1", "results": {"lambada/mean": {"metrics": {"accuracy": metric}}}}
    (single / "lambada.json").write_text(json.dumps(scores))
    (single / "other.json").write_text('{"schema": "gptkit.eval/1", "results": 3}')
    result, _ = compare(capsys, "study", "single")
    of_seeds, of_one = result["metrics"]["accuracy"]
    assert (of_seeds, of_one) == ({"value": 0.75, "interval": [0.7, 0.8]}, {"value": 0.75, "interval": None})
    nothing, stored = result["metrics"]["lambada/mean accuracy"]
    assert nothing is None
    assert stored["interval"] == pytest.approx([0.5 - 0.196, 0.5 + 0.196])
    assert len(drawn["curves"]["study"]) == 2
    assert drawn["lines"] == {"val_loss": "dev (classifier: L2)", "loss": "training (L3)"}


@pytest.mark.parametrize(("of_one", "is_marked"), [([0.4, 0.6], True), ([0.4, 0.7], False), (None, False)])
def test_one_seed_has_the_interval_of_its_items_and_its_loss_is_never_called_best(
    of_one: list[float] | None, is_marked: bool, capsys: pytest.CaptureFixture[str], drawn: dict[str, Any]
) -> None:
    for name, value, interval in (("one", 0.5, of_one), ("two", 0.75, [0.65, 0.8])):
        figures = {"metrics": {"accuracy": value}, "item_interval": {"accuracy": interval}, "val_loss": value}
        make_run(ROOT / name, "finetune", result=FINE_TUNED | figures)
    rows, _ = table(capsys)
    assert (rows["accuracy"][-1] == "*", "*" in rows["val_loss"]) == (is_marked, False)


def stored(path: Path, value: float | None, *, stderr: float = 0.1, data: str = "d") -> None:
    metric = {"value": value, "stderr": stderr, "higher_is_better": True}
    results = {"lambada/mean": {"data_sha256": data, "metrics": {"accuracy": metric}}}
    (path / "eval.json").write_text(json.dumps({"schema": "gptkit.eval/1", "results": results}))


def table(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, list[str]], str]:
    capsys.readouterr()
    assert main(["runs", "compare", "one", "two"]) == 0
    captured = capsys.readouterr()
    return {line.split("  ")[0]: line.split()[1:] for line in captured.out.splitlines()}, captured.err


def test_an_evaluation_that_one_run_has_makes_no_row_but_a_command(
    capsys: pytest.CaptureFixture[str], drawn: dict[str, Any]
) -> None:
    for name in ("one", "two"):
        make_run(ROOT / name, result=PRETRAINED)
    stored(ROOT / "one", 0.5)
    rows, errors = table(capsys)
    assert "lambada/mean accuracy" not in rows
    assert "gptkit eval --task lambada --model runs/two --output runs/two/eval.json" in errors
    stored(ROOT / "two", None)
    rows, errors = table(capsys)
    assert "None" not in str(rows)


@pytest.mark.parametrize(
    ("value", "stderr", "data", "is_marked"),
    [(0.9, 0.1, "d", True), (0.6, 0.1, "d", False), (0.9, 0.1, "other", False)],
)
def test_the_better_figure_is_marked_where_data_are_equal_and_intervals_apart(
    value: float,
    stderr: float,
    data: str,
    is_marked: bool,
    capsys: pytest.CaptureFixture[str],
    drawn: dict[str, Any],
) -> None:
    for name, own in (("one", 0.5), ("two", value)):
        stored(make_run(ROOT / name, result=PRETRAINED), own, stderr=stderr, data="d" if name == "one" else data)
    rows, _ = table(capsys)
    assert (rows["lambada/mean accuracy"][-1] == "*") == is_marked


@pytest.mark.parametrize("tokenizers", [("a", "a"), ("a", "b")])
def test_a_figure_per_token_is_best_only_among_equal_tokenizers(
    tokenizers: tuple[str, str], capsys: pytest.CaptureFixture[str], drawn: dict[str, Any]
) -> None:
    better = {"val_loss": 1.5, "bits_per_byte": 1.5}
    for name, tokenizer in zip(("one", "two"), tokenizers, strict=True):
        result = PRETRAINED | (better if name == "two" else {})
        make_run(ROOT / name, result=result, tokenizer_json=json.dumps(tokenizer))
    rows, errors = table(capsys)
    assert rows["bits_per_byte"][-1] == "*"
    assert (rows["val_loss"][-1] == "*") == (tokenizers == ("a", "a"))
    assert ("equal steps are then different amounts of text" in errors) == (tokenizers == ("a", "b"))


@pytest.mark.parametrize(
    ("coefficients", "label"), [((0.5, 0.2), "L3"), ((0.0, 0.0), "L2"), ((0.5, 0.0), "L3; L2 where lm_coef is 0")]
)
def test_a_training_loss_without_the_auxiliary_loss_is_not_called_l3(
    coefficients: tuple[float, float], label: str, capsys: pytest.CaptureFixture[str], drawn: dict[str, Any]
) -> None:
    for name, coefficient in zip(("one", "two"), coefficients, strict=True):
        make_run(ROOT / name, "finetune", lm_coef=coefficient)
    compare(capsys, "one", "two")
    assert drawn["lines"]["loss"] == f"training ({label})"


def test_what_cannot_be_compared(capsys: pytest.CaptureFixture[str], drawn: dict[str, Any]) -> None:
    for name in ("one", "two"):
        make_run(ROOT / name)
    make_run(ROOT / "tuned", "finetune", lm_coef=0.0)
    (ROOT / "empty").mkdir()
    Path("taken.png").write_text("mine")
    for words, message in (
        (("one",), "compare takes two or more different runs"),
        (("one", "runs/one"), "compare takes two or more different runs"),
        (("one", "empty"), "this run cannot be compared: not a run, or its config.yaml is missing"),
        (("one", "two", "--out", "taken.png"), "the file already exists"),
        (("one", "two", "--out", "picture.svg"), "the picture is a PNG file"),
        (("one", "two", "--out", "nowhere/picture.png"), "no such folder"),
    ):
        assert compare(capsys, *words, code=2)[0]["error"]["message"] == message
    assert Path("taken.png").read_text() == "mine"
    _, errors = compare(capsys, "one", "tuned")
    assert "losses of pretrain runs are per token, those of finetune runs per example" in errors
    assert drawn["lines"] == {"val_loss": "validation (finetune: L2)", "loss": "training (finetune: L2)"}
    (ROOT / "one/metrics.jsonl").unlink()
    _, errors = compare(capsys, "one", "two")
    assert "runs/one is not in the picture: it has no losses yet" in errors
    assert [*drawn["curves"]] == ["two"]
    (ROOT / "two/metrics.jsonl").unlink()
    assert compare(capsys, "one", "two")[0]["image"] is None


def test_a_picture_never_replaces_another(capsys: pytest.CaptureFixture[str], drawn: dict[str, Any]) -> None:
    for name in ("one", "two"):
        make_run(ROOT / name)
    images = [compare(capsys, "one", "two")[0]["image"] for _ in range(3)]
    assert images == ["compare.png", "compare-2.png", "compare-3.png"]


@pytest.mark.parametrize("count", [2, 12])
def test_the_picture_keeps_training_and_validation_apart_without_colour(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Any] = []

    def note(figure: Any, path: Path) -> None:
        save(figure, path)
        figures.append(figure)

    monkeypatch.setattr("gptkit.report.plots.save", note)
    names = ["_$x$ " + "long " * 20, *(f"run {number}" for number in range(1, count))]
    curves = {name: [{"val_loss": [(1.0, 3.0), (2.0, 2.0)], "loss": [(1.0, 3.5)]}] for name in names}
    lines = {"val_loss": "validation", "loss": "training"}
    draw_runs(curves, tmp_path / "it.png", lines=lines, validation="val_loss", xlabel="steps", ylabel="loss")
    [figure] = figures
    [axes] = figure.axes
    drawn = axes.get_lines()
    assert {(line.get_linestyle(), line.get_marker() == "None") for line in drawn} == {("-", False), (":", True)}
    looks = {(line.get_color(), line.get_marker()) for line in drawn if line.get_linestyle() == "-"}
    assert len(looks) == count
    [legend] = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[1:] == names[1:]  # a line style has no entry of its own, which would look like a run
    assert legend.get_title().get_text() == "markers: validation; dotted: training"
    assert texts[0].startswith("_$x$ long")
    assert len(texts[0]) <= 44
    assert not any(text.get_parse_math() for text in legend.get_texts())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("steps", "loss")
    assert (tmp_path / "it.png").read_bytes().startswith(PNG)
