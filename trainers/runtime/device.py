"""Choose the device, memory format and precision from capability flags.

The choice does not depend on timing, so it is the same in every run and every worker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Below 16x16 the casts cost more than bf16 saves, and float32 makes small runs reproducible.
MIN_IMAGE_SIDE = 16
MIN_CONV_CHANNELS = 16  # narrower convolutions do not fill a tile

OUT_OF_MEMORY_MESSAGES = (  # of a plain RuntimeError of torch
    "can't allocate memory",  # torch's CPU allocator; on Windows "not enough memory"
    "not enough memory: you tried to allocate",
    "std::bad_alloc",
    "CUDA error: out of memory",  # outside of torch's CUDA allocator
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """How networks run: device, memory format, precision and threads. Part of a run's config."""

    device: str = "cpu"
    channels_last: bool = False
    bf16: bool = False
    threads: int = 1
    compile: bool = False


def detect_device_config(
    model: nn.Module | None = None, input_shape: tuple[int, ...] | None = None
) -> DeviceConfig:
    """The fastest configuration on this machine, for the given network if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    fast = torch.cuda.is_bf16_supported() if device == "cuda" else cpu_has_bf16()
    if (
        model is not None
        and input_shape is not None
        and not gains_from_channels_last(model, input_shape)
    ):
        return DeviceConfig(device=device)
    return DeviceConfig(device=device, channels_last=True, bf16=fast)


def device_config_for(model: nn.Module, input_shape: tuple[int, ...]) -> DeviceConfig:
    """The fastest configuration on the model's own device."""
    detected = detect_device_config(model, input_shape)
    device = device_of(model).type
    if device == torch.device(detected.device).type:
        return detected
    bf16 = detected.channels_last and device == "cpu" and cpu_has_bf16()
    return DeviceConfig(device=device, channels_last=detected.channels_last, bf16=bf16)


def cpu_has_bf16() -> bool:
    """True if the CPU multiplies bf16 in hardware (AVX512-BF16 or AMX); emulation is slower."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, probe, lambda: False)()) for probe in probes)


def gains_from_channels_last(model: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """True if images and layers are large enough for channels_last and bf16 to be faster."""
    if len(input_shape) != 3 or min(input_shape[1:]) < MIN_IMAGE_SIDE:
        return False
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    return bool(widths) and max(widths) >= MIN_CONV_CHANNELS


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def to_device(model: nn.Module, machine: DeviceConfig) -> nn.Module:
    """Move a model, in place, to the configured device and memory format."""
    if machine.channels_last:
        return model.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    return model.to(machine.device)


def to_memory_format(images: Tensor, machine: DeviceConfig) -> Tensor:
    """Convert images to the configured memory format."""
    if machine.channels_last and images.ndim == 4:
        return images.contiguous(memory_format=torch.channels_last)
    return images


def autocast(machine: DeviceConfig, *, exact: bool = False) -> AbstractContextManager[object]:
    """Autocast to bf16 if the configuration says so; `exact` forces float32."""
    kind = torch.device(machine.device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=machine.bf16 and not exact)


@contextlib.contextmanager
def thread_limit(machine: DeviceConfig) -> Iterator[None]:
    """Use the configured number of threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: BaseException) -> bool:
    """True if an error reports that host or GPU memory ran out."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error) for words in OUT_OF_MEMORY_MESSAGES)


def halve_batch(batch: int, error: Exception, *, min_batch: int = 1) -> int:
    """Half of a batch size after an out-of-memory error; other errors are raised again."""
    if not is_out_of_memory(error) or batch // 2 < min_batch:
        raise error
    return batch // 2
