"""FastNAS of NVIDIA ModelOpt: its scores are measured once, then each size costs it little.

Its defaults find no network this small to change, so widths are multiples of 4; it calibrates on
50 batches, below which it would not.
"""

from __future__ import annotations

import copy
import warnings
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from typing import Any

import torch
from torch import nn

from benchmarks.search.bench import Bench
from benchmarks.search.blocks import plain, streams_kept
from benchmarks.search.rules import sizes
from benchmarks.search.worker import NetworkTask
from paretoprune.trainers.data.batches import fixed_subset, iterate_batches
from paretoprune.trainers.metrics.evaluate import evaluate
from paretoprune.trainers.runtime.device import autocast, thread_limit, to_memory_format

DIVISOR = 4
CALIBRATION_BATCHES, BATCH = 50, 64
SCORING_IMAGES = 2000


def fastnas(bench: Bench) -> dict[str, Any]:
    """Its search at each size of the grid; they reach down to 0.16."""
    import modelopt

    scene, free = bench.scene, streams_kept(bench.scene)
    for size in sizes():
        if not bench.has_room():
            break
        network, flops = plain(searched(size, bench), scene, free)
        if not bench.has_room():  # its scoring has taken what was left
            break
        task = NetworkTask(network, flops, bench.rules, bench.tuning_seed)
        bench.offer(f"{size}", task, scene)
    return {"version": modelopt.__version__}


def searched(size: float, bench: Bench) -> nn.Module:
    """Its answer for one share of the FLOPs; the checkpoint keeps its scores for the next."""
    import modelopt.torch.prune as mtp

    scene, data = bench.scene, bench.scene.data
    checkpoint = bench.folder / "fastnas.pth"
    alone = not checkpoint.exists()  # no fine-tune runs yet: all cores are its own
    cores = bench.rules.workers if alone else 1
    machine = replace(scene.machine, threads=cores, channels_last=False)  # which it refuses
    network = copy.deepcopy(scene.model).to(memory_format=torch.contiguous_format)
    network.requires_grad_(False)  # its tracer fails on weights that autocast keeps for gradients
    subset = fixed_subset(data.validation, SCORING_IMAGES)

    def calibrate(model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(bench.seed)
        reader = iterate_batches(
            data.train, data, batch_size=BATCH, generator=generator, augment=data.augment
        )
        for _, (images, _) in zip(range(CALIBRATION_BATCHES), reader, strict=False):
            model(to_memory_format(images, machine))

    def score(model: nn.Module) -> float:
        return evaluate(model, subset, data, machine=machine).accuracy

    rules = mtp.fastnas.FastNASConfig().model_dump()
    rules["nn.Conv2d"]["*"]["channel_divisor"] = DIVISOR
    rules["nn.BatchNorm2d"]["*"]["feature_divisor"] = DIVISOR
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        for context in (thread_limit(machine), autocast(machine)):
            stack.enter_context(context)
        for redirect in (redirect_stdout, redirect_stderr):
            stack.enter_context(redirect(StringIO()))
        with bench.scoring():
            found, _ = mtp.prune(
                model=network,
                mode=[("fastnas", rules)],
                constraints={"flops": f"{100 * size:.2f}%"},
                dummy_input=torch.zeros(1, *data.input_shape),
                config={
                    "forward_loop": calibrate,
                    "score_func": score,
                    "checkpoint": str(checkpoint),
                },
            )
    return found
