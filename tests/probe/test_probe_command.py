"""`gptkit probe`: a planted unit is found, an untrained model is no better than its control, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import UNIT, write_model, write_texts

from gptkit.cli.main import main
from gptkit.probe.results import accuracy_of
from gptkit.system.reading import read_json_object

ROW = {"layer", "site", "accuracy", "stderr", "units", "best_unit", "best_unit_accuracy", "control_accuracy"}


def test_a_planted_unit_is_found(planted: Any) -> None:
    result, out = planted.result, planted.out
    layer, unit = UNIT
    assert result["unit"] == f"{layer}.{unit}"
    assert result["unit_accuracy"] == 1
    row = next(row for row in result["layers"] if (row["layer"], row["site"]) == (layer, "mlp"))
    assert (row["best_unit"], row["accuracy"], row["by_units"][0]["accuracy"]) == (unit, 1, 1)
    below = next(row for row in result["layers"] if (row["layer"], row["site"]) == (0, "mlp"))
    assert below["interval"][0] < 0.5  # whose units cannot read the two dimensions
    assert f"best unit of an MLP: {layer}.{unit}, alone 100.00%" in out


def test_rows_have_intervals_and_controls_near_chance(planted: Any) -> None:
    result = planted.result
    assert [(row["layer"], row["site"]) for row in result["layers"]] == [
        (layer, site) for layer in range(2) for site in ("residual", "mlp")
    ]
    for row in result["layers"]:
        assert row.keys() >= ROW
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1] + 1e-9
        assert row["control_interval"][0] < 0.6
    assert result["best"] in result["layers"]
    assert (result["split"], result["chosen_on"], result["n_reported"], result["chance"]) == ("test", "dev", 80, 0.5)


def test_the_folder_has_the_result_and_a_page_of_its_own(planted: Any) -> None:
    folder, result, said = planted.folder, planted.result, planted.said
    assert {path.name for path in (folder / "probe").iterdir()} == {"probe.html", "result.json"}
    assert read_json_object(folder / "probe/result.json")["layers"] == json.loads(json.dumps(result["layers"]))
    page = (folder / "probe/probe.html").read_text(encoding="utf-8")
    assert "default-src 'none'; " in page
    assert "an analogue of the sentiment neuron" in said
    assert "fits 72/72" in said


def test_the_page_has_texts_of_every_label_and_samples_at_three_values(
    planted: Any,
) -> None:
    result, page = planted.result, planted.page.read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert {text["label"] for text in data["texts"]} == {0, 1}
    for text in data["texts"]:
        assert len(text["pieces"]) == len(text["values"][0]) == len(text["values"][1])
    values = [sample["value"] for sample in data["samples"]]
    assert values == sorted(values)
    assert values[0] < 0 < values[2]  # GELU of a negative and of a positive sum
    assert [sample["steer"] for sample in data["samples"]] == [f"{result['unit']}={value:g}" for value in values]
    unit = data["readers"][0]
    assert sum(unit["counts"][0]) == sum(unit["counts"][1]) == 40
    assert not any(x and y for x, y in zip(*unit["counts"], strict=True))  # the labels share no bin


def test_an_untrained_model_does_no_better_than_its_control(prober: Any, tmp_path: Path) -> None:
    write_model(tmp_path / "model", planted=False)
    result = prober(tmp_path, write_texts(tmp_path, "random")).result
    for row in result["layers"]:
        assert row["interval"][0] <= row["control_interval"][1]
        assert row["interval"][0] <= result["chance"]


def test_the_same_samples_come_from_generate(planted: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, result = planted.folder, planted.result
    sample = result["samples"][0]
    words = f"generate --steer {sample['steer']} --max-new-tokens 60 --top-k 40 --num-samples 2 --device cpu --json"
    assert main([*words.split(), "--model", str(folder / "model"), "--compile", "off"]) == 0
    written = json.loads(capsys.readouterr().out)["samples"]
    assert [each["text"] for each in written] == list(sample["texts"])


def test_without_a_labelled_test_split_dev_is_reported(prober: Any, tmp_path: Path) -> None:
    write_model(tmp_path / "model", planted=True)
    task = write_texts(tmp_path, counts=(60, 30, 4))
    task.write_text(task.read_text().replace(", test: test.csv", ""))
    probed = prober(tmp_path, task)
    result, said = probed.result, probed.said
    assert "no labelled test split: accuracy is on dev, and a tenth of train" in said
    assert (result["split"], result["chosen_on"], result["n_reported"]) == ("dev", "a tenth of train", 30)
    assert result["unit"] == f"{UNIT[0]}.{UNIT[1]}"


def test_the_interval_of_an_accuracy_is_wilsons() -> None:
    found = accuracy_of(np.array([1.0] * 8 + [0.0] * 2))
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["interval"] == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson's for 8 of 10
