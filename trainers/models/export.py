"""Networks as files for other programs: torch.export (.pt2) and ONNX, each compared with eager.

A file is written under another name, read back, run on noise at several batch sizes, and takes its
name only if its scores are eager's within `TOLERANCE`. The batch size stays free unless one is
asked for. TorchScript is not offered: PyTorch has deprecated it in favour of torch.export.
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
CHECKED_BATCH_SIZES = (1, 2, 5)  # tried where the batch size is free
MAX_ONNX_BYTES = 2**31 - 2**24  # one ONNX file; protobuf ends at 2 GiB
Runner = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """To which format, for which images, at which batch size (None: any), run on how many threads.

    Of several outputs the file returns the class scores alone, which have at least `classes`
    columns. The threads concern the runner that the check and the timing use, not the file.
    """

    format: str
    input_shape: tuple[int, ...]
    batch: int | None = None
    threads: int = 1
    classes: int = 1

    def check(self) -> None:
        """Refuse what cannot be exported."""
        if self.format not in EXPORT_SUFFIXES:
            why = "TorchScript is deprecated: " if "script" in self.format.lower() else ""
            raise UserError(
                f"--to must be {' or '.join(EXPORT_SUFFIXES)}, got {self.format!r}; {why}write --to torch"
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
    """A file that was checked, and a function that runs it on the CPU."""

    path: Path
    runner: Runner
    max_difference: float  # difference from eager, relative
    batches: tuple[int, ...]
    element: str = WHOLE  # of the network's output: what the file returns


def require_package(name: str) -> Any:
    """A package of the extra `paretoprune[onnx]`."""
    try:
        return import_module(name)
    except ImportError:
        raise UserError(
            f"--to onnx needs the package {name}, got none; pip install 'paretoprune[onnx]'"
        ) from None


def export_network(model: nn.Module, path: Path, spec: ExportSpec) -> ExportedModel:
    """Write the network to `path` once the file was read back and agrees with eager."""
    spec.check()
    plain = copy.deepcopy(model).to("cpu", torch.float32, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain.eval()
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
                plain, element = scores_alone(plain, spec)
                write(plain, spec, partial)
        except UserError:
            raise
        except Exception as error:  # exporters raise whatever their tracing meets
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            remedy = "try --batch 1" if spec.batch is None else "try the other format"
            raise UserError(
                f"a network must be traceable to be exported, got {reason}; {remedy}"
            ) from error
        runner = read(partial, spec)
        batches = CHECKED_BATCH_SIZES if spec.batch is None else (spec.batch,)
        worst = max_relative_difference(plain, runner, spec, batches)
        commit_file(partial, path)
    return ExportedModel(path, runner, worst, batches, element)


@torch.no_grad()
def scores_alone(model: nn.Module, task: ExportSpec) -> tuple[nn.Module, str]:
    """A network that returns the class scores alone, and which element of the output they are."""
    output = model(*example_inputs(task))
    if isinstance(output, Tensor):
        return model, WHOLE
    return ElementOnly(model, task.classes).eval(), element_of(output, task.classes).path


class ElementOnly(nn.Module):
    """A network that returns one tensor of another's output: its class scores."""

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
    """The largest relative difference from eager on noise; an error above the tolerance."""
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
    """Seeded images [count, *shape]."""
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(0))


def dynamic_shapes(spec: ExportSpec) -> tuple[dict[int, Any]] | None:
    """The first dimension free, or nothing."""
    return ({0: torch.export.Dim("batch", min=1)},) if spec.batch is None else None


def example_inputs(spec: ExportSpec) -> tuple[Tensor]:
    """The images to trace with; a batch of 1 would be taken for a constant."""
    return (random_images(spec.batch or 2, spec.input_shape),)


def write_torch_export(model: nn.Module, spec: ExportSpec, path: Path) -> None:
    """Write by torch.export."""
    program = torch.export.export(model, example_inputs(spec), dynamic_shapes=dynamic_shapes(spec))
    torch.export.save(program, path)


def load_torch_export(path: Path, spec: ExportSpec) -> Runner:
    """Run what torch.export wrote."""
    program = torch.export.load(path).module()
    machine = DeviceConfig(threads=spec.threads)

    def run(images: Tensor) -> Tensor:
        with torch.no_grad(), thread_limit(machine):
            scores: Tensor = program(images)
            return scores

    return run


def write_onnx(model: nn.Module, spec: ExportSpec, path: Path) -> None:
    """Write by PyTorch's exporter to ONNX, weights included."""
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
    """Run an ONNX file with onnxruntime on the CPU."""
    runtime = require_package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = spec.threads, 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (scores,) = session.run(["scores"], {"images": images.numpy()})
        return torch.from_numpy(scores)

    return run
