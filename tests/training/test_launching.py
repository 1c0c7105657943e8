"""Several processes from one command: how they are launched, and how they end, together and with one line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from launch_place import ended, start, wait_for, wait_until_nothing_is_left, watched

import gptkit
from gptkit.cli.main import run_training
from gptkit.console import Console
from gptkit.errors import GptkitError, OtherRankFailed, UsageError
from gptkit.finetune.options import FinetuneOptions
from gptkit.model.modeling_gpt import GPTForCausalLM
from gptkit.pretrain.inputs import prepare_inputs
from gptkit.pretrain.options import PretrainOptions
from gptkit.recipes import recipes_root
from gptkit.system import ranks
from gptkit.training.launching import Launch, LaunchConfig, launch, plan_launch, read_launch_config
from gptkit.training.options import TrainingOptions, config_path

README = Path(__file__).parents[2] / "README.md"
LAUNCHER = """
import sys
from gptkit.errors import GptkitError
from gptkit.training.launching import Launch, launch
try:
    launch(Launch(2, "cpu", 1), sys.argv[1:], print, module="rank_toy")
except GptkitError as error:
    print(error)
    sys.exit(error.exit_code)
"""
LAUNCHED_BY_HAND = {"RANK": "0", "LOCAL_RANK": "0", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


def planned(options: TrainingOptions, config: LaunchConfig | None = None, gpus: int = 0, **environment: str) -> Launch:
    plan = plan_launch(options, config or LaunchConfig(), gpus=gpus, cores=16, environment=environment)
    assert plan is not None
    return plan


def test_processes_share_the_cores_unless_the_user_says_otherwise() -> None:
    asked = FinetuneOptions(task="rte", num_processes=3)
    assert planned(asked) == Launch(3, "cpu", threads=5)
    assert planned(asked, OMP_NUM_THREADS="2").threads == 2
    assert planned(FinetuneOptions(task="rte", num_processes=40)).threads == 1


def test_one_process_needs_no_launcher() -> None:
    assert plan_launch(PretrainOptions(num_processes=1), LaunchConfig(), gpus=8, cores=4, environment={}) is None


def test_an_option_beats_the_file_and_the_file_what_is_found() -> None:
    ddp = read_launch_config(config_path("ddp"))
    assert planned(PretrainOptions(), ddp, gpus=8).processes == 8
    six = LaunchConfig(ddp.path, "MULTI_GPU", num_processes=6, port=29999)
    assert not planned(PretrainOptions(), six, gpus=8).config.sharded
    assert planned(PretrainOptions(), six, gpus=8) == Launch(6, "cuda", 2, six)
    assert planned(PretrainOptions(num_processes=2), six, gpus=8).processes == 2
    assert planned(PretrainOptions(num_processes=2, device="cpu"), six, gpus=8).device == "cpu"


@pytest.mark.parametrize(
    ("options", "config", "gpus", "words"),
    [
        ({"num_processes": 8}, None, 2, "8 processes need a GPU each; available: 2"),
        ({"num_processes": 2, "device": "cuda"}, None, 0, "no CUDA device"),
        ({"num_processes": 2, "device": "mps"}, None, 0, "one process"),
        ({}, "ddp", 0, "the number of processes is not given"),
        ({"num_processes": 65}, None, 0, "65 processes are too many for 16 cores"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(options: dict[str, object], config: str, gpus: int, words: str) -> None:
    file = read_launch_config(config_path(config)) if config else LaunchConfig()
    with pytest.raises(UsageError, match=words):
        planned(PretrainOptions(**options), file, gpus=gpus)  # type: ignore[arg-type]


def test_both_launchers_take_the_line_that_is_shown() -> None:
    from torch.distributed.run import get_args_parser

    words = ["pretrain", "a b.txt", "--standalone"]
    for plan, parser, skipped in (
        (Launch(2, "cpu", 1), get_args_parser(), 1),
        (Launch(2, "cpu", 1, LaunchConfig(port=29999)), get_args_parser(), 1),
        (Launch(8, "cuda", 2), launch_command_parser(), 2),
        (Launch(8, "cuda", 2, read_launch_config(config_path("ddp"))), launch_command_parser(), 2),
        (Launch(8, "cuda", 2, read_launch_config(config_path("fsdp2"))), launch_command_parser(), 2),
    ):
        parsed = parser.parse_args([*plan.launcher_line()[skipped:], "gptkit", *words])
        assert (parsed.module, parsed.training_script, parsed.training_script_args) == (True, "gptkit", words)
        assert int(parsed.num_processes if plan.device == "cuda" else parsed.nproc_per_node) == plan.processes
        if plan.device == "cuda":
            sharded = plan.config.sharded
            assert (parsed.use_fsdp, parsed.multi_gpu) == (sharded, not sharded)
            assert parsed.fsdp_version == ("2" if sharded else "1")


def test_the_line_by_hand_has_its_variables() -> None:
    words = ["pretrain", "a b.txt", "--standalone"]
    same = "torchrun --standalone --nproc_per_node 2 -m gptkit pretrain 'a b.txt' --standalone"
    assert Launch(2, "cpu", 1).summary(words).endswith(f"by hand: OMP_NUM_THREADS=1 {same}")
    sharded = Launch(2, "cpu", 1, LaunchConfig(kind="FSDP")).summary(words)
    assert "2 processes on the CPU (gloo), sharded (FSDP2), 1 thread each" in sharded
    assert sharded.endswith(f"by hand: OMP_NUM_THREADS=1 ACCELERATE_USE_FSDP=true FSDP_VERSION=2 {same}")


def test_the_documented_lines_for_several_nodes_are_taken_by_accelerate(tmp_path: Path) -> None:
    """The README's, and the one of the Slurm script on the second of its nodes, with stand-ins for Slurm."""
    block = next(part for part in README.read_text().split("\n\n") if part.lstrip().startswith("TORCH_ELASTIC"))
    stubs = {"scontrol": "echo first; echo second", "srun": 'exec "${@:3}"', "accelerate": 'printf "%s\\0" "$@" > line'}
    for name, line in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"JOB_NODELIST": "x", "JOB_ID": "7", "CPUS_PER_TASK": "64", "NNODES": "2", "NODEID": "1"}
    environment = {f"SLURM_{name}": value for name, value in slurm.items()} | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}"
    }
    script = str(recipes_root() / "slurm" / "pretrain.sh")
    lines = {
        ("0", "10.0.0.1", False): (["-c", block], {}),
        ("1", "first", False): ([script, "book.txt", "--out", "a b"], {}),
        ("1", "first", True): ([script, "book.txt"], {"SHARDING": "--use_fsdp --fsdp_version 2"}),
    }
    for (rank, host, sharded), (words, more) in lines.items():
        subprocess.run(["bash", *words], env=environment | more, cwd=tmp_path, check=True)
        parsed = launch_command_parser().parse_args((tmp_path / "line").read_text().split("\0")[1:-1])
        assert (str(parsed.machine_rank), parsed.main_process_ip, parsed.use_fsdp) == (rank, host, sharded)
        assert (parsed.num_machines, parsed.num_processes, parsed.training_script) == (2, 16, "gptkit")
        if rank == "0":
            prepare_multi_gpu_env(_validate_launch_command(parsed)[0])
            assert (parsed.nnodes, parsed.nproc_per_node, parsed.master_addr) == ("2", "8", host)
    assert parsed.training_script_args == ["pretrain", "book.txt"]


def test_a_file_of_fsdp2_shards() -> None:
    config = read_launch_config(config_path("fsdp2"))
    assert config.summary().endswith("distributed_type FSDP (version 2)")  # and nothing that is not used
    plan = planned(PretrainOptions(num_processes=2), config)
    assert plan == Launch(2, "cpu", threads=8, config=config)
    assert planned(PretrainOptions(), config, gpus=4).config.sharded
    assert plan_launch(PretrainOptions(num_processes=1), config, gpus=0, cores=4, environment={}) is None
    block = yaml.safe_load(config_path("fsdp2").read_text())["fsdp_config"]["fsdp_transformer_layer_cls_to_wrap"]
    assert [block] == GPTForCausalLM._no_split_modules


def test_both_launchers_set_what_the_shipped_file_of_fsdp2_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named to `accelerate launch` itself, and through the line that gptkit runs."""
    file = config_path("fsdp2")
    by_hand = ["--config_file", str(file), "--num_processes", "2", "-m", "gptkit", "pretrain"]
    ours = [*Launch(2, "cuda", 1, read_launch_config(file)).launcher_line()[2:], "gptkit", "pretrain"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for words in (by_hand, ours):
        environment = prepare_multi_gpu_env(_validate_launch_command(launch_command_parser().parse_args(words))[0])
        assert environment["ACCELERATE_USE_FSDP"] == "true"
        for name, value in yaml.safe_load(file.read_text())["fsdp_config"].items():
            variable = name.upper().replace("TRANSFORMER_LAYER_CLS", "TRANSFORMER_CLS")
            assert environment[variable].lower() == str(value).lower(), name


def run_here(options: PretrainOptions, capsys: pytest.CaptureFixture[str]) -> tuple[list[int | None], str]:
    """Return with how many processes the command ran in this process, and what was said."""
    ran: list[int | None] = []
    run_training(lambda options, _: ran.append(options.num_processes) or {}, options, ["pretrain"], Console())  # type: ignore[func-returns-value]
    return ran, capsys.readouterr().err


def test_muon_is_refused_before_anything_is_launched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    muon = PretrainOptions(optimizer="muon", num_processes=2, accelerate_config="fsdp2", device="cpu")
    with pytest.raises(UsageError, match="Muon needs whole matrices"):
        run_here(muon, capsys)
    for name, value in {**LAUNCHED_BY_HAND, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="Muon needs whole matrices"):
        run_here(muon, capsys)


def test_a_plan_of_what_would_be_refused_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    muon = PretrainOptions(optimizer="muon", num_processes=2, accelerate_config="fsdp2", device="cpu", dry_run=True)
    with pytest.raises(UsageError, match="Muon needs whole matrices"):
        run_here(muon, capsys)


def test_one_process_shards_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran, said = run_here(PretrainOptions(num_processes=1, accelerate_config="fsdp2", device="cpu"), capsys)
    assert ran == [1]
    assert said.splitlines()[-1] == "1 process: nothing to launch, nothing to shard"
    for name, value in {**LAUNCHED_BY_HAND, "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    ran, said = run_here(PretrainOptions(), capsys)
    assert (ran, said) == ([1], "1 process: nothing to shard\n")
    assert os.environ["ACCELERATE_USE_FSDP"] == "false"


def test_a_process_that_accelerate_launch_leaves_alone_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for asked in ("1", "2"):
        words = ["--cpu", "--num_processes", asked, "--num_machines", "1", "-m", "gptkit", "pretrain"]
        parsed = _validate_launch_command(launch_command_parser().parse_args(words))[0]
        for name, value in prepare_simple_launcher_cmd_env(parsed)[1].items():
            monkeypatch.setenv(name, value)
        ran, said = run_here(PretrainOptions(), capsys)
        assert ran == [1]
        assert ("does not connect processes on CPUs" in said) == (asked == "2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("just words", "no `key: value` lines"),
        ("# nothing\n", "no `key: value` lines"),
        ("distributed_type: MULTI_GPU\nnum_proceses: 2", "did you mean 'num_processes'"),
        ("distributed_type: DEEPSPEED", "DEEPSPEED is not supported"),
        ("distributed_type: MULTI_GPU\nnum_processes: two", "not a whole number"),
        ("distributed_type: MULTI_GPU\nnum_machines: 2", "accelerate launch --num_machines"),
        ("distributed_type: MULTI_GPU\nmain_process_port: 70000", "main_process_port 70000 is not a port"),
        ("distributed_type: FSDP", "only version 2 of FSDP is supported"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_version: 1}", "only version 2 of FSDP is supported"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_versoin: 2}", "did you mean 'fsdp_version'"),
        ("distributed_type: FSDP\nfsdp_config: 2", "not a group of keys"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"own.yaml") as raised:
        read_launch_config(path)
    assert words in str(raised.value)


def test_a_file_may_leave_everything_open(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("{}")
    assert read_launch_config(path) == LaunchConfig(path, "NO")


def test_a_file_says_what_is_taken_from_it_and_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"distributed_type": "MULTI_CPU", "num_processes": 2, "mixed_precision": "bf16"}))
    said = read_launch_config(path).summary()
    assert said.endswith("distributed_type MULTI_CPU, num_processes 2; not used: mixed_precision (--precision)")
    sharding = {"fsdp_version": 2, "fsdp_offload_params": True, "fsdp_state_dict_type": "SHARDED_STATE_DICT"}
    checkpointing = {"activation_checkpointing": True}  # as accelerate, which takes it with and without fsdp_
    path.write_text(yaml.safe_dump({"distributed_type": "FSDP", "fsdp_config": sharding | checkpointing}))
    unused = "fsdp_activation_checkpointing (gradient_checkpointing), fsdp_offload_params"
    assert read_launch_config(path).summary().endswith(f"FSDP (version 2); not used: {unused}")


def test_a_launched_process_knows_it() -> None:
    assert ranks.world({}) is None
    assert ranks.world({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}) == ranks.World(3, 8)
    assert ranks.world({"ACCELERATE_MIXED_PRECISION": "no"}) == ranks.World(0, 1)
    assert ranks.world({"RANK": "1", "WORLD_SIZE": "2", ranks.FOLDER: "77:/tmp/x"}) == ranks.World(1, 2, launcher=77)


def test_the_first_error_counts_and_collateral_ones_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ranks.FOLDER, f"1:{tmp_path}")
    for rank, error in enumerate((UsageError("first", where="w"), UsageError("later"), OtherRankFailed("of main"))):
        monkeypatch.setenv("RANK", str(rank))
        assert ranks.report_error(error)
    found = ranks.errors_in(tmp_path)
    assert [one.error.message for one in found] == ["first", "later", "of main"]
    assert found[0].error.as_json() == UsageError("first", where="w").as_json()
    assert str(found[0].error) == "first (w)"


# Real launches, of toys.


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with watched(tmp_path) as place:
        yield place


def test_more_processes_than_sequences_a_step_are_refused_in_one_object(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("GPTKIT_CACHE", str(place / "cache"))
    options = PretrainOptions(num_processes=3, tokens_per_step=32, sequence_length=16, model="shape.json")
    with pytest.raises(UsageError, match="2 sequences per step are too few for 3 processes") as raised:
        prepare_inputs(options, Console())
    assert raised.value.fix == "pass --tokens-per-step 48, or --num-processes 2"
    assert capsys.readouterr().out == ""  # before any text is read


def launch_toy(place: Path, monkeypatch: pytest.MonkeyPatch, *words: str, sharded: bool = False) -> object:
    monkeypatch.chdir(place)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(gptkit.__file__).parents[1])])
    )
    config = LaunchConfig(kind="FSDP" if sharded else "NO")
    return launch(Launch(2, "cpu", 1, config), words, print, module="rank_toy")


def test_the_result_is_rank_0s_and_nothing_stays_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    (place / "dataclasses.py").write_text("raise SystemExit('beside the data, this is no library')")
    result = launch_toy(place, monkeypatch, "done", sharded=True)
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    assert result == {"rank": 0, "OMP_NUM_THREADS": "1", **asked}
    assert signal.getsignal(signal.SIGTERM) is handler
    assert {name for name in os.environ if name not in before} <= {"PYTHONPATH"}


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("usage", 2, "of rank 1 (--some-flag)"),
        ("killed", 6, "process 1 was killed by SIGKILL"),
        ("silent", 6, "process 1 ended with exit code 7 and reported no error"),
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


@pytest.mark.parametrize(
    ("number", "deed", "code", "message"),
    [
        (signal.SIGINT, "commit", 130, "stopped (step 3 of 9) - go on"),
        (signal.SIGTERM, "commit", 143, "stopped (step 3 of 9) - go on"),
        (signal.SIGTERM, "wait", 143, "interrupted by SIGTERM - rerun the same command"),
        (signal.SIGKILL, "wait", -9, ""),
    ],
)
def test_ranks_end_with_their_launcher(number: signal.Signals, deed: str, code: int, message: str, place: Path) -> None:
    process = start(place, LAUNCHER, deed, python="-c", PYTHONPATH=str(Path(__file__).parent))
    wait_for(place / "waiting-1", process)
    process.send_signal(number)
    found, out, err = ended(process)
    wait_until_nothing_is_left(place)
    assert (found, out.strip()) == (code, message), err


def test_a_port_in_use_is_a_usage_error(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} is in use \(own.yaml\) - leave main_process_port out"):
            launch(Launch(2, "cpu", 1, LaunchConfig(Path("own.yaml"), port=port)), ["done"], print, module="rank_toy")


def test_an_unknown_configuration_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'ddp'"):
        config_path("dpp")
