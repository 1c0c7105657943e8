"""The native engine on aarch64, cross-compiled and emulated: the logits of this machine, on recorded weights.

Needs Debian's gcc-aarch64-linux-gnu and qemu-user; speed cannot be measured so.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt_toy import FAMILIES, toy
from gptkit.decoding.engines import Piece
from gptkit.decoding.native import library
from gptkit.decoding.native.engine import ACTIVATIONS, NativeEngine, WeightFormat
from gptkit.decoding.text_options import Precision

COMPILER = shutil.which("aarch64-linux-gnu-gcc")
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
PROCESSORS = {"armv8-a": "cortex-a72", "armv8.2-a+dotprod": "max"}  # -march -> qemu's -cpu
ARITHMETICS: list[tuple[WeightFormat, Precision, float]] = [  # and the largest difference, over the largest logit
    ("fp32", "fp32", 1e-5),
    ("bf16", "bf16", 1e-2),
    ("int8", "fp32", 1e-5),
    ("int8", "int8", 4e-2),  # a sum in another order may round to another code
    ("int4", "int8", 4e-2),
]
PARTS = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")

pytestmark = pytest.mark.skipif(not (COMPILER and EMULATOR), reason="no cross-compiler or emulator for aarch64")


@pytest.fixture(scope="module", params=PROCESSORS)
def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command that runs the driver."""
    program = tmp_path_factory.mktemp("driver") / "driver"
    flags = [*(flag for flag in library.FLAGS if flag not in ("-shared", "-fPIC")), "-static", f"-I{library.FOLDER}"]
    source = str(Path(__file__).with_name("native_driver.c"))
    command = [str(COMPILER), *flags, f"-march={request.param}", source, "-o", str(program), "-lm"]
    subprocess.run(command, check=True)
    return [str(EMULATOR), "-cpu", PROCESSORS[request.param], str(program)]


@pytest.mark.parametrize(("weight_format", "precision", "tolerance"), ARITHMETICS)
@pytest.mark.parametrize("pre_norm", FAMILIES)
def test_logits_are_those_of_this_machine(
    pre_norm: bool, weight_format: WeightFormat, precision: Precision, tolerance: float, driver: list[str]
) -> None:
    model = toy(pre_norm, n_embd=160, n_head=2, vocab_size=131)
    ids = np.random.default_rng(0).integers(0, 131, 20).astype(np.int32)
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    engine = NativeEngine(model.config, weights, weight_format=weight_format, precision=precision)
    engine.open(1, len(ids))
    expected = np.concatenate([engine.forward([Piece(0, at, [one])]) for at, one in enumerate(ids.tolist())])
    recorded = record(model.config, weights, weight_format, precision, ids)
    done = subprocess.run(driver, input=recorded, capture_output=True, check=True)
    found = np.frombuffer(done.stdout, np.float32).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max())


def record(config: Any, weights: dict[str, Any], weight_format: str, precision: str, ids: Any) -> bytes:
    """Return what the driver reads."""
    shape = (config.n_layer, config.n_head, config.n_embd, config.inner_width, config.vocab_size, config.n_positions)
    codes = (library.FORMATS[weight_format], library.PRECISIONS[precision], len(ids))
    numbers = np.array([*shape, config.pre_norm, ACTIVATIONS[config.activation_function], *codes], np.int32)
    names = ["transformer.wte.weight", "transformer.wpe.weight"]
    for layer in range(config.n_layer):
        names += [f"transformer.h.{layer}.{part}.{kind}" for part in PARTS for kind in ("weight", "bias")]
    names += ["transformer.ln_f.weight", "transformer.ln_f.bias"] * config.pre_norm + ["lm_head.weight"]
    tensors = (np.ascontiguousarray(weights[name], np.float32).tobytes() for name in names)
    return b"".join([numbers.tobytes(), np.float32(config.layer_norm_epsilon).tobytes(), *tensors, ids.tobytes()])
