"""`nvidia-smi`: the list, the query form, and a short plain form."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from trtllm_simulator.gpu import Gpu, visible

_FREE = 512  # MiB that driver and context take

_FIELDS: dict[str, tuple[str, str, Callable[[Gpu], str]]] = {
    "index": ("index", "", lambda gpu: str(gpu.index)),
    "name": ("name", "", lambda gpu: gpu.name),
    "uuid": ("uuid", "", lambda gpu: gpu.uuid),
    "compute_cap": ("compute_cap", "", lambda gpu: gpu.compute_capability),
    "memory.total": ("memory.total [MiB]", " MiB", lambda gpu: str(gpu.memory_mib)),
    "memory.free": ("memory.free [MiB]", " MiB", lambda gpu: str(gpu.memory_mib - _FREE)),
    "memory.used": ("memory.used [MiB]", " MiB", lambda _: str(_FREE)),
    "driver_version": ("driver_version", "", lambda gpu: gpu.driver),
    "mig.mode.current": ("mig.mode.current", "", lambda gpu: gpu.mig),
    "utilization.gpu": ("utilization.gpu [%]", " %", lambda _: "0"),
    "count": ("count", "", lambda _: str(len(visible()))),
}

_HELP = """NVIDIA System Management Interface SIMULATOR (part of the TensorRT-LLM simulator; there is no GPU)

    nvidia-smi                                    a table
    nvidia-smi -L                                 one line for each GPU
    nvidia-smi --query-gpu=FIELDS --format=csv[,noheader][,nounits]
"""


def _query(fields: str, form: str, gpus: Sequence[Gpu]) -> int:
    options = form.split(",")
    if options[0] != "csv" or not set(options[1:]) <= {"noheader", "nounits"}:
        print(f"Option \"--format={form}\" is not recognized. Please run 'nvidia-smi -h'.")
        return 2
    names = [name.strip() for name in fields.split(",")]
    for name in names:
        if name not in _FIELDS:
            print(f'Field "{name}" is not a valid field to query.\n')
            return 2
    units = "nounits" not in options
    if "noheader" not in options:
        print(", ".join(_FIELDS[name][0] if units else _FIELDS[name][0].split(" ")[0] for name in names))
    for gpu in gpus:
        print(", ".join(_FIELDS[name][2](gpu) + (_FIELDS[name][1] if units else "") for name in names))
    return 0


def _table(gpus: Sequence[Gpu]) -> None:
    print(time.strftime("%a %b %d %H:%M:%S %Y"))
    print("+" + "-" * 77 + "+")
    print(f"| {'NVIDIA-SMI SIMULATOR (there is no GPU)':<44} Driver Version: {gpus[0].driver:<15} |")
    print("+" + "-" * 77 + "+")
    for gpu in gpus:
        print(f"| {gpu.index:>3}  {gpu.name:<36} {_FREE:>6}MiB / {gpu.memory_mib:>6}MiB  MIG {gpu.mig:<8} |")
    print("+" + "-" * 77 + "+")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 2 for a bad option, 6 where there are no GPUs, as the real one."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in {"-h", "--help"}:
        print(_HELP)
        return 0
    gpus = visible()
    values = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    flags = [argument for argument in arguments if "=" not in argument]
    if unknown := [flag for flag in flags if flag not in {"-L", "--list-gpus"}] + [
        key for key in values if key not in {"--query-gpu", "--format"}
    ]:
        print(f"Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\nOption \"{unknown[0]}\" is not recognized.")
        return 2
    if not gpus:
        print("No devices were found")
        return 6
    if "--query-gpu" in values:
        return _query(values["--query-gpu"], values.get("--format", "csv"), gpus)
    if flags:
        for gpu in gpus:
            print(f"GPU {gpu.index}: {gpu.name} (UUID: {gpu.uuid})")
        return 0
    _table(gpus)
    return 0


if __name__ == "__main__":
    sys.exit(main())
