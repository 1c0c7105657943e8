"""Pickled weights run nothing, and take no more memory than their file."""

from __future__ import annotations

import _codecs
import collections
import copy
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptkit.convert.pickled import NumberType, load_pickled, number, plain_tensors
from gptkit.errors import InputError


def loaded(content: object, path: Path) -> Any:
    torch.save(content, path)
    return load_pickled(path, "copy it again")


@pytest.mark.parametrize(
    "value",
    [np.float64(1.5), np.float32(-2), np.float16(0.25), np.int64(-3), np.uint8(200), np.bool_(True), np.int16(7)],
)
def test_a_number_of_numpy_becomes_the_same_number(value: Any, tmp_path: Path) -> None:
    found = loaded({"value": value, "big-endian": np.dtype(">i4").type(258)}, tmp_path / "a.pt")
    assert found["value"] == value
    assert type(found["value"]) in (int, float, bool)
    assert found["big-endian"] == 258


def test_the_order_of_bytes_is_heeded() -> None:
    kind = NumberType("i4")
    kind.__setstate__((3, ">", None))
    assert number(kind, bytes([0, 0, 1, 2])) == 258


class Calls:
    """Unpickling it would call `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> Any:
        return self.called


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Calls(os.system, "touch canary"), r"it asks for posix\.system, which no tensor needs"),
        (Calls(eval, "1"), r"it asks for (builtins\.)?eval"),
        (bytearray(2), r"it asks for (builtins\.)?bytearray"),  # of a number, it would be as many bytes
        (Calls(torch.FloatTensor, 1000), r"it asks for torch\.FloatTensor"),
        (Calls(_codecs.encode, "a" * 1000, "latin1"), "weights_only=True"),  # many times the same text
        (Calls(_codecs.encode, "aa", "hex"), "weights_only=True"),  # twice as long each time
        (Calls(collections.OrderedDict, [(1, 2)]), "weights_only=True"),
        (np.array([1.5]), r"it asks for numpy\._core\.multiarray\._reconstruct"),
        (Calls(np.dtype, "O"), "weights_only=True"),
        (Calls(np.dtype, "V1000000"), "weights_only=True"),
        (Calls(np.dtype, [("a", "i4")]), "weights_only=True"),
        (Calls(type(np.float64(1)).__reduce__(np.float64(1))[0], np.dtype("i8"), b"1"), "weights_only=True"),  # type: ignore[index]
        (Calls(type(np.float64(1)).__reduce__(np.float64(1))[0], 3, b"12345678"), "weights_only=True"),  # type: ignore[index]
    ],
)
def test_a_pickle_that_asks_for_more_is_refused(
    content: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        loaded({"model": content}, tmp_path / "a.pt")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_what_is_safe_elsewhere_stays_as_it_was(tmp_path: Path) -> None:
    loaded({"value": np.float64(1)}, tmp_path / "a.pt")
    torch.save({"value": {1}}, tmp_path / "b.pt")
    assert torch.load(tmp_path / "b.pt") == {"value": {1}}


@pytest.mark.parametrize("is_zip", [True, False])
def test_files_of_old_and_new_torch_are_read_and_parameters_become_tensors(is_zip: bool, tmp_path: Path) -> None:
    expected = torch.randn(3, 2)
    state = collections.OrderedDict(a=expected, b=torch.nn.Parameter(expected.half()))
    torch.save({"model": state, "lr": np.float32(0.5)}, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    found = load_pickled(tmp_path / "a.pt", "copy it again")
    assert found["lr"] == 0.5
    tensors = plain_tensors(found["model"], "a.pt")
    assert torch.equal(tensors["a"], expected)
    assert type(tensors["b"]) is torch.Tensor
    assert not tensors["b"].requires_grad


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_of_more_than_names_and_shapes_is_refused(is_zip: bool, tmp_path: Path) -> None:
    torch.save({"a": "x" * 5_000_000}, tmp_path / "a.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(InputError, match="weights_only"):
        load_pickled(tmp_path / "a.pt", "copy it again")


def test_a_pickle_that_torch_did_not_write_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="weights_only"):
        load_pickled(tmp_path / "a.pt", "copy it again")
    assert capsys.readouterr() == ("", "")


def test_a_file_that_may_not_be_read_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    torch.save({}, tmp_path / "a.pt")
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(InputError, match="permission denied"):
        load_pickled(tmp_path / "a.pt", "copy it again")


def test_a_zip_behind_other_bytes_is_refused(tmp_path: Path) -> None:
    """Where its list of parts lies, readers then disagree."""
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"PK\x03\x04" + (tmp_path / "a.pt").read_bytes())
    with pytest.raises(InputError, match="weights_only"):
        load_pickled(tmp_path / "b.pt", "copy it again")


def test_a_compressed_file_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as plain,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for part in plain.namelist():
            small.writestr(part, plain.read(part))
    with pytest.raises(InputError, match="weights_only"):
        load_pickled(tmp_path / "b.pt", "copy it again")


def test_parts_that_overlap_are_refused(tmp_path: Path) -> None:
    """Two entries of the zip's directory name the same bytes."""
    torch.save({"a": torch.zeros(100_000)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as whole:
        [part] = [part for part in whole.infolist() if part.filename.endswith("data/0")]
        for number in range(1, 4):
            again = copy.copy(part)
            again.filename = part.filename[:-1] + str(number)
            whole.filelist.append(again)
            whole.NameToInfo[again.filename] = again
        whole.comment = b"changed"
    with pytest.raises(InputError, match="weights_only"):
        load_pickled(tmp_path / "a.pt", "copy it again")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lies(path: Path) -> None:
    """The storage of a tensor has fewer bytes than its pickle says."""
    parts = {}
    with zipfile.ZipFile(path) as whole:
        parts = {part: whole.read(part) for part in whole.namelist()}
    with zipfile.ZipFile(path, "w") as small:
        for part, raw in parts.items():
            small.writestr(part, raw[:64] if part.endswith("data/0") else raw)


@pytest.mark.parametrize("damage", [cut, lies])
def test_a_damaged_file_is_refused(damage: Any, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pt")
    damage(tmp_path / "a.pt")
    with pytest.raises(InputError, match="weights_only"):
        plain_tensors(load_pickled(tmp_path / "a.pt", "copy it again"), "a.pt")


def test_tensors_that_say_more_than_they_store_are_refused() -> None:
    whole = torch.zeros(10)
    assert plain_tensors({"a": whole, "tied": whole}, "a.pt").keys() == {"a", "tied"}
    for state in ({"a": torch.zeros(1).expand(2**40)}, {str(place): whole for place in range(1000)}):
        with pytest.raises(InputError, match="repeat the same few numbers"):
            plain_tensors(state, "a.pt")
