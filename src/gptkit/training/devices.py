"""GPUs that a plan knows without having one, and the share of their peak that our training reaches."""

from __future__ import annotations

from dataclasses import dataclass

from gptkit.training.hardware import Hardware

# Model FLOPs utilisation in bf16. Measured on one H100 with GPT-2 124M, 65,536 tokens a forward pass: 450,000 tokens/s
# compiled, 405,000 eager (vocabulary 50,304); the 774M and 1.5B models reached 0.36 and 0.37 eager, the 124M one with
# 16,384 tokens a pass 0.29. For every other device and model it is an assumption.
MFU = {"compiled": 0.36, "eager": 0.33}
MEASURED_ON = "H100"
RESERVE = 3 << 30  # bytes: CUDA's context, cuBLAS' workspaces, NCCL's buffers, what the allocator cannot use; assumed


@dataclass(frozen=True)
class Device:
    """A GPU: `name` finds its peak in `hardware.PEAKS`, `memory` is in bytes, `source` a data sheet, as remembered."""

    name: str
    memory: int
    source: str

    def hardware(self) -> Hardware:
        """Return what the rules of a run would know of it."""
        return Hardware("cuda", self.name, True, "g++", 1, self.memory)


DEVICES = (
    Device("A100", 80 * 10**9, "NVIDIA A100 80GB SXM data sheet (2021): BF16 312 TFLOPS, 80 GB"),
    Device(
        "H100", 80 * 10**9, "NVIDIA H100 SXM data sheet (2023): BF16 1,979 TFLOPS with sparsity (dense: half), 80 GB"
    ),
    Device(
        "H200", 141 * 10**9, "NVIDIA H200 SXM data sheet (2023): BF16 1,979 TFLOPS with sparsity (dense: half), 141 GB"
    ),
    Device("B200", 180 * 10**9, "NVIDIA DGX B200 data sheet (2024): 8 GPUs, BF16 36 PFLOPS with sparsity, 1,440 GB"),
)
