"""Training throughput against the loop that a tutorial writes, in one run on one core.

    python benchmarks/throughput.py --data cifar10:DIR [--models resnet20,resnet56] [--compiled]

The tutorial's loop: PIL images, torchvision transforms in a DataLoader, float32, NCHW, SGD. Rounds
alternate between the loops, and a ratio is taken within each round, so that what else the machine
does disturbs both alike. `compare_loss` trains the same steps in float32 and as the library
chooses; a second float32 seed shows the noise. `share_memory` opens the data in four processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from paretoprune.analysis.scores.measure import load_or_measure_scores
from paretoprune.spaces.allocations.decode import PruningSpace, decode_policy
from paretoprune.spaces.cost.cost import CostModel
from paretoprune.spaces.cost.target import Target
from paretoprune.spaces.graph.trace import trace_channel_map
from paretoprune.spaces.policy.policy import CONTROL_POLICIES
from paretoprune.trainers.data.sources.load import load_data
from paretoprune.trainers.data.splits import DataSplits
from paretoprune.trainers.models.build import build_model
from paretoprune.trainers.pruning.surgery import prune_network
from paretoprune.trainers.runtime.device import DeviceConfig, detect_device_config
from paretoprune.trainers.training.distillation import LOGITS_CACHE_BYTES, Teacher
from paretoprune.trainers.training.optimizer import TrainingSettings
from paretoprune.trainers.training.session import AuxiliaryLosses, TrainingSession

BATCH = 128
WORKERS = 4


class PilImages(Dataset[tuple[Any, int]]):
    """Images as a tutorial's dataset gives them: one PIL image at a time, transformed."""

    def __init__(self, data: DataSplits) -> None:
        from torchvision import transforms

        steps = [transforms.RandomCrop(data.input_shape[1], padding=4)]
        steps += [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.change = transforms.Compose([*steps, transforms.Normalize(data.mean, data.std)])
        self.data = data

    def __len__(self) -> int:
        return len(self.data.train)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        from PIL import Image

        pixels = self.data.train.images[row].permute(1, 2, 0).numpy()
        return self.change(Image.fromarray(pixels)), int(self.data.train.labels[row])


def tutorial_steps(model: nn.Module, data: DataSplits) -> Iterator[float]:
    """The plain loop; each step yields its loss."""
    loader = DataLoader(PilImages(data), batch_size=BATCH, shuffle=True, drop_last=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    while True:
        for images, labels in loader:
            optimiser.zero_grad()
            loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            loss.backward()
            optimiser.step()
            yield loss.item()


def network(name: str, data: DataSplits) -> nn.Module:
    """The same initial weights for every loop."""
    return build_model(name, classes=data.classes, input_shape=data.input_shape, seed=0)


def session(
    name: str, data: DataSplits, machine: DeviceConfig | None, *, taught: bool
) -> TrainingSession:
    """The library's loop, ready to take steps."""
    model = network(name, data)
    chosen = machine or detect_device_config(model, data.input_shape)
    guidance = AuxiliaryLosses(teacher=Teacher(network(name, data), chosen) if taught else None)
    return TrainingSession(
        model, data, TrainingSettings(epochs=9), seed=0, guidance=guidance, machine=machine
    )


def timed(work: Callable[[], object]) -> float:
    """Wall seconds, with a GPU's queue emptied."""
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def compare_speed(
    name: str, data: DataSplits, *, rounds: int, steps: int, compiled: bool
) -> dict[str, object]:
    """Images a second of each loop and the median ratio to the tutorial's, round by round."""
    plain = tutorial_steps(network(name, data), data)
    ours = {
        "library": session(name, data, None, taught=False),
        "library, distilled": session(name, data, None, taught=True),
        "library, float32": session(name, data, DeviceConfig(channels_last=True), taught=False),
    }
    if compiled:
        machine = replace(
            detect_device_config(network(name, data), data.input_shape), compile=True
        )
        ours["library, compiled"] = session(name, data, machine, taught=False)
    work: dict[str, Callable[[], object]] = {
        "tutorial": lambda: [next(plain) for _ in range(steps)]
    }
    for key, run in ours.items():
        work[key] = lambda run=run: run.advance(run.step + steps)  # type: ignore[misc]
    for warm in work.values():
        warm()
    read = {key: run.reading_seconds for key, run in ours.items()}
    seconds = {key: list[float]() for key in work}
    for _ in range(rounds):
        for key, act in work.items():
            seconds[key].append(timed(act))
    images = steps * BATCH
    return {
        key: {
            "images_per_second": round(images / statistics.median(spent)),
            "ratio": round(
                statistics.median(a / b for a, b in zip(seconds["tutorial"], spent, strict=True)),
                2,
            ),
            "reading_share": round((ours[key].reading_seconds - read[key]) / sum(spent), 4)
            if key in ours
            else None,
        }
        for key, spent in seconds.items()
    }


def compare_teachers(name: str, data: DataSplits, *, rounds: int, steps: int) -> dict[str, object]:
    """A trial's fine-tune at 0.4 of the FLOPs: its teacher asked, and remembering the batches."""
    model = network(name, data).eval()
    machine = detect_device_config(model, data.input_shape)
    channel_map = trace_channel_map(model, data.input_shape)
    space = PruningSpace(channel_map, CostModel(channel_map))
    policy = CONTROL_POLICIES["uniform"]
    names = [policy.score]
    evidence = load_or_measure_scores(model, channel_map, data, folder=None, seed=0, names=names)
    keep = decode_policy(policy, Target(0.4), evidence, space)
    remembers = Teacher(model, machine, memory=LOGITS_CACHE_BYTES)
    teachers = {"asked": Teacher(model, machine), "heard": remembers, "remembers": remembers}
    runs = {
        key: TrainingSession(
            prune_network(model, channel_map, keep),
            data,
            TrainingSettings(epochs=9),
            seed=0,
            guidance=AuxiliaryLosses(teacher=teacher),
            machine=machine,
        )
        for key, teacher in teachers.items()
    }
    runs.pop("heard").advance((rounds + 1) * steps)
    for run in runs.values():
        run.advance(steps)
    spent = {key: list[float]() for key in runs}
    for _ in range(rounds):
        for key, run in runs.items():
            spent[key].append(timed(partial(run.advance, run.step + steps)))
    pairs = zip(spent["asked"], spent["remembers"], strict=True)
    rates = {key: round(steps * BATCH / statistics.median(spent[key])) for key in runs}
    ratio = round(statistics.median(a / b for a, b in pairs), 2)
    return {"device": device_name(), **rates, "ratio": ratio}


def compare_loss(name: str, data: DataSplits, *, steps: int) -> dict[str, float]:
    """Mean loss of the last quarter of equal steps: as chosen, in float32, float32 of seed 1."""
    exact = DeviceConfig()
    found = {}
    for key, machine, seed in (
        ("chosen", None, 0),
        ("float32", exact, 0),
        ("float32, seed 1", exact, 1),
    ):
        run = TrainingSession(
            network(name, data), data, TrainingSettings(epochs=9), seed=seed, machine=machine
        )
        run.advance(steps * 3 // 4)
        run.pop_means()
        run.advance(steps)
        found[key] = round(run.pop_means()[0], 4)
    return found


def paid_megabytes() -> float:
    """What this process pays for mapped arrays: a page shared by n processes counts as 1/n."""
    paid, mapped = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if not first.endswith(":"):
            mapped = line.endswith("_images.npy")
        elif mapped and first == "Pss:":
            paid += int(line.split()[1])
    return paid / 1024


def share_memory(name: str, data: DataSplits) -> dict[str, float]:
    """Megabytes of the arrays, and what each of four workers that read them all pays."""
    context = multiprocessing.get_context("spawn")
    together, sizes = context.Barrier(WORKERS), context.Queue()
    crew = [context.Process(target=_reader, args=(name, together, sizes)) for _ in range(WORKERS)]
    for worker in crew:
        worker.start()
    paid = [sizes.get() for _ in crew]
    for worker in crew:
        worker.join()
    whole = sum(s.images.numel() for s in (data.train, data.validation)) / 2**20
    return {"arrays_mb": round(whole, 1), "paid_per_worker_mb": round(statistics.mean(paid), 1)}


def _reader(name: str, together: Any, sizes: Any) -> None:
    data = load_data(name)
    for split in (data.train, data.validation):
        for chunk in split.images.split(1000):
            chunk.sum(dtype=torch.int64)
    together.wait()  # all four have read everything, none has gone
    sizes.put(paid_megabytes())
    together.wait()


def main() -> None:
    """Measure, print the rows, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="a name that load_data takes, 3x32x32")
    parser.add_argument("--models", default="resnet20,resnet56")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps a loop takes in each round")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too; minutes")
    parser.add_argument("--loss-steps", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/throughput.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data = replace(load_data(asked.data), augment="flip-crop")  # as the tutorial's loop
    results: dict[str, object] = {
        "schema": 1,
        "torch": torch.__version__,
        "device": device_name(),
        "data": data.name.partition(":")[0],
    }
    for name in asked.models.split(","):
        speed = compare_speed(
            name, data, rounds=asked.rounds, steps=asked.steps, compiled=asked.compiled
        )
        chosen = asdict(detect_device_config(network(name, data), data.input_shape))
        loss = compare_loss(name, data, steps=asked.loss_steps) if asked.loss_steps else None
        taught = compare_teachers(name, data, rounds=asked.rounds, steps=asked.steps)
        results[name] = {"machine": chosen, "speed": speed, "teacher": taught, "loss": loss}
        for key, row in speed.items():
            print(f"{name:10} {key:20} {row}")
        print(f"{name:10} at 0.4 of the FLOPs, teacher: {taught}")
        print(f"{name:10} loss after {asked.loss_steps} steps: {loss}", flush=True)
    results["memory"] = share_memory(asked.data, data)
    print("memory", results["memory"])
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(results, indent=1) + "\n")


def device_name() -> str:
    """The GPU's name, else the CPU's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


if __name__ == "__main__":
    main()
