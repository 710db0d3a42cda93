"""Export networks with torch.export (.pt2) or to ONNX, and compare each file with eager mode.

A file is written under a temporary name, loaded and run on noise at several batch sizes. It gets
its final name only if its scores equal eager's within `TOLERANCE`. The batch size is dynamic
unless one is given. TorchScript is not supported: PyTorch deprecated it in favour of torch.export.
"""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...spaces.errors import UserError
from ...spaces.io.atomic_write import commit_file
from ...spaces.output_forms import WHOLE
from ...spaces.outputs import element_of
from ..runtime.device import DeviceConfig, thread_limit

EXPORT_SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}
TOLERANCE = 1e-4  # of the largest score, or of 1 where scores are smaller
CHECKED_BATCH_SIZES = (1, 2, 5)  # if the batch size is dynamic
MAX_ONNX_BYTES = 2**31 - 2**24  # of weights in one ONNX file; protobuf is limited to 2 GiB
Runner = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """The format, image shape and batch size (None: dynamic) of an export.

    Of several outputs, the file returns the class scores only, which have at least `classes`
    columns. `threads` is the number of threads of `ExportedModel.runner`, not of the file.
    """

    format: str
    input_shape: tuple[int, ...]
    batch: int | None = None
    threads: int = 1
    classes: int = 1

    def check(self) -> None:
        """Raise UserError for an invalid format, batch size, number of threads or package."""
        if self.format not in EXPORT_SUFFIXES:
            reason = "TorchScript is deprecated: " if "script" in self.format.lower() else ""
            raise UserError(
                f"--to must be {' or '.join(EXPORT_SUFFIXES)}, got {self.format!r}; "
                f"{reason}write --to torch"
            )
        if self.batch is not None and self.batch < 1:
            raise UserError(f"--batch must be dynamic or at least 1, got {self.batch}; write 1")
        cores = os.cpu_count() or 1
        if not 1 <= self.threads <= cores:
            raise UserError(
                f"--threads must be 1 to {cores}, the cores of this machine, got {self.threads}; "
                "write 1"
            )
        if self.format == "onnx":
            for name in ("onnx", "onnxscript", "onnxruntime"):
                require_package(name)


@dataclass(frozen=True, slots=True, eq=False)
class ExportedModel:
    """A verified file, and a function that runs it on the CPU."""

    path: Path
    runner: Runner
    max_difference: float  # difference from eager, relative
    batches: tuple[int, ...]
    element: str = WHOLE  # the element of the network's output that the file returns


def require_package(name: str) -> Any:
    """Import a package of the extra `paretoprune[onnx]`."""
    try:
        return import_module(name)
    except ImportError:
        raise UserError(
            f"--to onnx needs the package {name}, got none; pip install 'paretoprune[onnx]'"
        ) from None


def export_network(model: nn.Module, path: Path, spec: ExportSpec) -> ExportedModel:
    """Export the network to `path`; the file is verified against eager mode first.

    Raises:
        UserError: if the network cannot be exported, or the file gives other scores.
    """
    spec.check()
    cpu_model = copy.deepcopy(model).eval()
    cpu_model.to("cpu", torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    write, read = (
        (write_torch_export, load_torch_export)
        if spec.format == "torch"
        else (write_onnx, load_onnx)
    )
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        partial = Path(folder) / path.name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cpu_model, element = scores_only(cpu_model, spec)
                write(cpu_model, spec, partial)
        except UserError:
            raise
        except Exception as error:  # tracing runs the user's code, which may raise anything
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            remedy = "try --batch 1" if spec.batch is None else "try the other format"
            raise UserError(
                f"a network must be traceable to be exported, got {reason}; {remedy}"
            ) from error
        runner = read(partial, spec)
        batches = CHECKED_BATCH_SIZES if spec.batch is None else (spec.batch,)
        worst = max_relative_difference(cpu_model, runner, spec, batches)
        commit_file(partial, path)
    return ExportedModel(path, runner, worst, batches, element)


@torch.no_grad()
def scores_only(model: nn.Module, spec: ExportSpec) -> tuple[nn.Module, str]:
    """A network that returns only the class scores, and their path in the original output."""
    output = model(*example_inputs(spec))
    if isinstance(output, Tensor):
        return model, WHOLE
    return ScoresOnly(model, spec.classes).eval(), element_of(output, spec.classes).path


class ScoresOnly(nn.Module):
    """A wrapper that returns only the class scores of a network's output."""

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model, self.classes = model, classes

    def forward(self, images: Tensor) -> Tensor:
        """The class scores."""
        return element_of(self.model(images), self.classes).tensor


@torch.no_grad()
def max_relative_difference(
    model: nn.Module, runner: Runner, spec: ExportSpec, batches: tuple[int, ...]
) -> float:
    """The largest relative difference from eager mode on noise.

    Raises:
        UserError: if the difference exceeds the tolerance.
    """
    worst = 0.0
    for count in batches:
        images = random_images(count, spec.input_shape)
        eager, found = model(images), runner(images)
        if found.shape != eager.shape:
            raise UserError(
                f"an exported network must give eager's scores, got shape {tuple(found.shape)} "
                f"instead of {tuple(eager.shape)} at batch {count}; try --batch {count}"
            )
        scale = max(1.0, float(eager.abs().max()))
        worst = max(worst, float((found - eager).abs().max()) / scale)
        if not worst <= TOLERANCE:  # NaN too
            raise UserError(
                f"an exported network must give eager's scores within {TOLERANCE:g}, got a "
                f"difference of {worst:.3g} at batch {count}; nothing was written: try the other "
                "format"
            )
    return worst


def random_images(count: int, shape: tuple[int, ...]) -> Tensor:
    """Random images [count, *shape], the same on every call."""
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(0))


def dynamic_shapes(spec: ExportSpec) -> tuple[dict[int, Any]] | None:
    """A dynamic first dimension, or None for a fixed batch size."""
    return ({0: torch.export.Dim("batch", min=1)},) if spec.batch is None else None


def example_inputs(spec: ExportSpec) -> tuple[Tensor]:
    """The images for tracing. torch.export would treat a batch size of 1 as a constant."""
    return (random_images(spec.batch or 2, spec.input_shape),)


def write_torch_export(model: nn.Module, spec: ExportSpec, path: Path) -> None:
    """Write a file with torch.export."""
    program = torch.export.export(model, example_inputs(spec), dynamic_shapes=dynamic_shapes(spec))
    torch.export.save(program, path)


def load_torch_export(path: Path, spec: ExportSpec) -> Runner:
    """A function that runs a file of torch.export on the CPU."""
    program = torch.export.load(path).module()
    machine = DeviceConfig(threads=spec.threads)

    def run(images: Tensor) -> Tensor:
        with torch.no_grad(), thread_limit(machine):
            scores: Tensor = program(images)
            return scores

    return run


def write_onnx(model: nn.Module, spec: ExportSpec, path: Path) -> None:
    """Write one ONNX file, weights included, with PyTorch's exporter."""
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    if size > MAX_ONNX_BYTES:
        raise UserError(
            f"one ONNX file holds at most 2 GiB, got weights of {size:,} bytes; use --to torch"
        )
    program = torch.onnx.export(
        model,
        example_inputs(spec),
        dynamo=True,
        dynamic_shapes=dynamic_shapes(spec),
        input_names=["images"],
        output_names=["scores"],
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=False)


def load_onnx(path: Path, spec: ExportSpec) -> Runner:
    """A function that runs an ONNX file with onnxruntime on the CPU."""
    runtime = require_package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = spec.threads, 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (scores,) = session.run(["scores"], {"images": images.numpy()})
        return torch.from_numpy(scores)

    return run
