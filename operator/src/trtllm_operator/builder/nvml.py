"""GPUs by NVML, the driver's library, without a package: for containers where nvidia-smi is missing."""

from __future__ import annotations

import ctypes

from trtllm_operator.builder.gpus import GPU

_TEXT = 96
_SUCCESS = 0


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong)]


class NVMLError(RuntimeError):
    """NVML is missing or refuses."""


def query(library: str = "libnvidia-ml.so.1") -> list[GPU]:
    """All GPUs.

    Raises:
        NVMLError: the library can't be loaded, or a call fails.
    """
    try:
        nvml = ctypes.CDLL(library)
    except OSError as error:
        raise NVMLError(f"{library} can't be loaded: {error}") from error
    _call(nvml, "nvmlInit_v2")
    try:
        count = ctypes.c_uint()
        _call(nvml, "nvmlDeviceGetCount_v2", ctypes.byref(count))
        driver = _text(nvml, "nvmlSystemGetDriverVersion")
        return [_gpu(nvml, index, driver) for index in range(count.value)]
    finally:
        nvml.nvmlShutdown()


def _call(nvml: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = getattr(nvml, name)(*arguments)
    if code != _SUCCESS:
        raise NVMLError(f"{name} failed with code {code}")


def _text(nvml: ctypes.CDLL, name: str, *first: object) -> str:
    buffer = ctypes.create_string_buffer(_TEXT)
    _call(nvml, name, *first, buffer, ctypes.c_uint(_TEXT))
    return buffer.value.decode(errors="replace")


def _gpu(nvml: ctypes.CDLL, index: int, driver: str) -> GPU:
    device = ctypes.c_void_p()
    _call(nvml, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device))
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call(nvml, "nvmlDeviceGetCudaComputeCapability", device, ctypes.byref(major), ctypes.byref(minor))
    memory = _Memory()
    _call(nvml, "nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory))
    current, pending = ctypes.c_uint(), ctypes.c_uint()
    has_mig = nvml.nvmlDeviceGetMigMode(device, ctypes.byref(current), ctypes.byref(pending)) == _SUCCESS  # refused by GPUs without it
    return GPU(
        index=index,
        name=_text(nvml, "nvmlDeviceGetName", device),
        uuid=_text(nvml, "nvmlDeviceGetUUID", device),
        compute_capability=f"{major.value}.{minor.value}",
        memory_mib=memory.total // 2**20,
        free_mib=memory.free // 2**20,
        driver=driver,
        mig=("Enabled" if current.value else "Disabled") if has_mig else "",
    )
