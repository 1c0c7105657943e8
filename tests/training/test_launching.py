"""Several processes from one command: how they are launched, and how they end, together and with one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

import gptkit
from gptkit import ranks
from gptkit.commands.launch import config_path
from gptkit.errors import GptkitError, OtherRankFailed, UsageError
from gptkit.options import FinetuneOptions, PretrainOptions, TrainingOptions
from gptkit.pretraining.inputs import prepare_inputs
from gptkit.training.launch_config import LaunchConfig, read_launch_config
from gptkit.training.launching import Launch, launch, plan_launch

TINY = ["pretrain", "text.txt", "--model", "shape.json", "--tokenizer", "char", "--compile", "off", "--device", "cpu"]
SIZES = ["--steps", "4", "--tokens-per-step", "64", "--sequence-length", "16", "--out", "run"]


def planned(options: TrainingOptions, config: LaunchConfig | None = None, gpus: int = 0, **environment: str) -> Launch:
    plan = plan_launch(options, config, gpus=gpus, cores=16, environment=environment)
    assert plan is not None
    return plan


def test_processes_share_the_cores_unless_the_user_says_otherwise() -> None:
    asked = FinetuneOptions(task="rte", num_processes=3)
    assert planned(asked) == Launch(3, "cpu", threads=5)
    assert planned(asked, OMP_NUM_THREADS="2").threads == 2
    assert planned(FinetuneOptions(task="rte", num_processes=40)).threads == 1


def test_one_process_needs_no_launcher() -> None:
    assert plan_launch(PretrainOptions(num_processes=1), None, gpus=8, cores=4, environment={}) is None


def test_an_option_beats_the_file_and_the_file_what_is_found() -> None:
    ddp = read_launch_config(config_path("ddp"))
    assert planned(PretrainOptions(), ddp, gpus=8).processes == 8
    path, six = ddp.path, LaunchConfig(ddp.path, "MULTI_GPU", num_processes=6, port=29999)
    assert planned(PretrainOptions(), six, gpus=8) == Launch(6, "cuda", 2, port=29999, config=path)
    assert planned(PretrainOptions(num_processes=2), six, gpus=8).processes == 2
    assert planned(PretrainOptions(num_processes=2, device="cpu"), six, gpus=8).device == "cpu"


@pytest.mark.parametrize(
    ("options", "config", "gpus", "words"),
    [
        ({"num_processes": 8}, None, 2, "8 processes need a GPU each, 2 are here"),
        ({"num_processes": 2, "device": "cuda"}, None, 0, "no cuda device"),
        ({"num_processes": 2, "device": "mps"}, None, 0, "one process"),
        ({}, "ddp", 0, "how many processes"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(options: dict[str, object], config: str, gpus: int, words: str) -> None:
    file = read_launch_config(config_path(config)) if config else None
    with pytest.raises(UsageError, match=words):
        planned(PretrainOptions(**options), file, gpus=gpus)  # type: ignore[arg-type]


def test_both_launchers_take_the_line_that_is_shown() -> None:
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    words = ["pretrain", "a b.txt", "--standalone"]
    for plan, parser, skipped in (
        (Launch(2, "cpu", 1), get_args_parser(), 1),
        (Launch(2, "cpu", 1, port=29999), get_args_parser(), 1),
        (Launch(8, "cuda", 2), launch_command_parser(), 2),
        (Launch(8, "cuda", 2, config=config_path("ddp")), launch_command_parser(), 2),
    ):
        parsed = parser.parse_args([*plan.launcher_line()[skipped:], "gptkit", *words])
        assert (parsed.module, parsed.training_script, parsed.training_script_args) == (True, "gptkit", words)
        assert int(parsed.num_processes if plan.device == "cuda" else parsed.nproc_per_node) == plan.processes
    assert Launch(2, "cpu", 1).described(words).endswith("-m gptkit pretrain 'a b.txt' --standalone")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("just words", "no `key: value` lines"),
        ("distributed_type: MULTI_GPU\nnum_proceses: 2", "did you mean 'num_processes'"),
        ("distributed_type: DEEPSPEED", "DEEPSPEED is not supported"),
        ("distributed_type: MULTI_GPU\nnum_processes: two", "not a whole number"),
        ("distributed_type: MULTI_GPU\nnum_machines: 2", "accelerate launch --num_machines"),
        ("distributed_type: FSDP", "FSDP is not supported"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"own.yaml") as raised:
        read_launch_config(path)
    assert words in str(raised.value)


def test_a_file_says_what_is_taken_from_it_and_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"distributed_type": "MULTI_CPU", "num_processes": 2, "mixed_precision": "bf16"}))
    said = read_launch_config(path).described()
    assert said.endswith("distributed_type MULTI_CPU, num_processes 2; not used: mixed_precision (--precision)")


def test_a_launched_process_knows_it() -> None:
    assert ranks.world({}) is None
    assert ranks.world({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}) == ranks.World(3, 8)
    assert ranks.world({"ACCELERATE_MIXED_PRECISION": "no"}) == ranks.World(0, 1)
    assert ranks.world({"RANK": "1", "WORLD_SIZE": "2", ranks.FOLDER: "77:/tmp/x"}) == ranks.World(1, 2, launcher=77)


def test_the_first_error_counts_and_collateral_ones_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ranks.FOLDER, f"1:{tmp_path}")
    for rank, error in enumerate((UsageError("first", where="w"), UsageError("later"), OtherRankFailed("of main"))):
        monkeypatch.setenv("RANK", str(rank))
        assert ranks.hand_over_error(error)
    found = ranks.records_in(tmp_path)
    assert [one.error.message for one in found] == ["first", "later", "of main"]
    assert found[0].error.as_json() == UsageError("first", where="w").as_json()
    assert str(found[0].error) == "first (w)"


# Real launches. No process may be left behind, whatever happens.


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "text.txt").write_text("".join(f"line {i} of some text to learn.\n" for i in range(400)))
    shape = {"model_type": "gptkit", "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    (tmp_path / "shape.json").write_text(json.dumps(shape))
    yield tmp_path
    left = [one for one in psutil.process_iter() if _works_in(one, tmp_path)]
    for one in left:
        one.kill()
    assert not left


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.pid != os.getpid() and process.cwd() == str(folder) and process.status() != "zombie"
    except psutil.Error:
        return False


def start(place: Path, *words: str, python: str = "-mgptkit", **environment: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name not in (*ranks.LAUNCHED, ranks.FOLDER)}
    paths = os.pathsep.join(filter(None, [environment.pop("PYTHONPATH", ""), str(Path(gptkit.__file__).parents[1])]))
    own = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GPTKIT_CACHE": str(place / "cache"), "HF_HOME": str(place)}
    return subprocess.Popen(
        [sys.executable, python, *words],
        cwd=place,
        env=kept | own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_two_processes_train_and_print_one_object(place: Path) -> None:
    code, out, err = ended(start(place, *TINY, *SIZES, "--num-processes", "2", "--json"))
    assert code == 0, err
    assert json.loads(out)["steps"] == 4  # one object and no more
    assert "launched 2 processes on this CPU (gloo), 1 thread each; the same: torchrun --standalone" in err
    assert err.count("step 4/4") == 1
    assert yaml.safe_load((place / "run" / "config.yaml").read_text())["num_processes"] == 2


def test_a_signal_to_the_launcher_commits_and_says_once_how_to_go_on(place: Path) -> None:
    process = start(place, *TINY, *SIZES, "--steps", "100000", "--num-processes", "2")
    wait_for(place / "run" / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)  # as Ctrl-C does: the ranks have sessions of their own
    code, _, err = ended(process)
    assert code == 130, err
    assert err.count("gptkit pretrain --resume run") == 1
    assert err.splitlines()[-1].startswith("error: interrupted by SIGINT (step ")
    assert list((place / "run" / "checkpoints").glob("step-*/MANIFEST.json"))


def test_more_processes_than_sequences_a_step_are_refused_in_one_object(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("GPTKIT_CACHE", str(place / "cache"))
    options = PretrainOptions(num_processes=3, tokens_per_step=32, sequence_length=16, model="shape.json")
    with pytest.raises(UsageError, match="2 sequences a step are too few for 3 processes") as raised:
        prepare_inputs(options, print)
    assert raised.value.fix == "give --tokens-per-step 48, or --num-processes 2"
    assert capsys.readouterr().out == ""  # before any text is read


def launch_toy(place: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.chdir(place)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(gptkit.__file__).parents[1])])
    )
    return launch(Launch(2, "cpu", 1), words, module="rank_toy")


def test_the_result_is_rank_0s_and_nothing_stays_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    assert launch_toy(place, monkeypatch, "done") == {"rank": 0, "threads": "1"}
    assert signal.getsignal(signal.SIGTERM) is handler
    assert {name for name in os.environ if name not in before} <= {"PYTHONPATH"}


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("usage", 2, "of rank 1 (--some-flag)"),
        ("killed", 6, "process 1 was ended by SIGKILL"),
        ("silent", 6, "process 1 ended with exit code 7 before it could say why"),
        ("collateral", 2, "of rank 1 (--some-flag)"),
    ],
)
def test_a_rank_that_fails_ends_all_with_its_own_line(
    fault: str, code: int, message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its peer would wait for minutes, or fails in turn because of it."""
    with pytest.raises(GptkitError) as raised:
        launch_toy(place, monkeypatch, fault)
    assert raised.value.exit_code == code
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_ranks_end_with_their_launcher(number: str, place: Path) -> None:
    script = "from gptkit.training.launching import *\nlaunch(Launch(2, 'cpu', 1), ['wait'], module='rank_toy')"
    environment = {"PYTHONPATH": str(Path(__file__).parent)}
    process = start(place, script, python="-c", **environment)
    wait_for(place / "waiting-1", process)
    process.send_signal(getattr(signal, number))
    err = process.communicate(timeout=30)[1]
    deadline = time.monotonic() + 10
    while any(_works_in(one, place) for one in psutil.process_iter()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert ("interrupted by SIGTERM" in err) == (number == "SIGTERM")


def test_a_port_in_use_is_a_usage_error(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} is in use \(own.yaml\) - leave main_process_port out"):
            launch(Launch(2, "cpu", 1, port=port, config=Path("own.yaml")), ["done"], module="rank_toy")


def test_an_unknown_configuration_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'ddp'"):
        config_path("dpp")


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
