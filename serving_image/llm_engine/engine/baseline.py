"""What is here before a model is loaded: which device, how much is free, what torch takes.

Measured in a process of its own, so that whoever asks need not import torch.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from llm_engine.contract.memory_plan import FRAMEWORK_BYTES
from llm_engine.engine.host import read_host

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Baseline:
    """A machine without a model.

    device           cpu or cuda
    dtype_bytes      bytes per element of what would be computed in
    free_bytes       memory of that device that can be taken
    framework_bytes  what interpreter and torch, or the CUDA context, take of it
    """

    device: str
    dtype_bytes: int
    free_bytes: int
    framework_bytes: int


def read_baseline(device: str, dtype: str = "auto") -> Baseline:
    """Measure in a new process; raises ValueError for a device that is not there."""
    result = subprocess.run(
        [sys.executable, "-m", "llm_engine.engine.baseline", device, dtype],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or ["no word"]
        raise ValueError(f"device {device!r} could not be looked at: {lines[-1]}")
    return Baseline(**json.loads(result.stdout))


def _measure(device_name: str, dtype_name: str) -> Baseline:
    host = read_host()  # before torch takes its part
    import torch

    from llm_engine.engine.loading import choose_device, choose_dtype

    torch.set_num_threads(host.threads)
    device = choose_device(device_name)
    dtype = choose_dtype(dtype_name, device, host)
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + FRAMEWORK_BYTES["cuda"]  # asking takes it
        return Baseline("cuda", dtype.itemsize, free, FRAMEWORK_BYTES["cuda"])
    _touch(dtype)
    return Baseline("cpu", dtype.itemsize, host.free_bytes, _resident_bytes())


def _touch(dtype: "object") -> None:
    """Use what every model uses, so that its libraries are in memory."""
    import torch

    import llm_engine.engine.runner
    import llm_engine.model.assembly  # noqa: F401 (imported for its size)

    assert isinstance(dtype, torch.dtype)
    rows = torch.ones(64, 64, dtype=dtype)
    torch.nn.functional.linear(rows, rows)
    heads = rows.view(1, 4, 16, 64)
    torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)


def _resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return FRAMEWORK_BYTES["cpu"]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_measure(*sys.argv[1:]))))
