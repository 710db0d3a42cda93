"""The commands after a search: pick, finetune, export. Heavy imports are lazy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ...trainers.data.image_options import AUGMENT_HELP, MEAN_HELP
from ..config.settings import DATA_HELP
from .options import NetworkFolderOption, RunArgument, StdOption

PickedFolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="Read the picked network in this folder.")
]
OwnModelOption = Annotated[
    str | None,
    typer.Option(
        help="Build the dense network with module:function. Needed if the network is your own."
    ),
]
DISTILL_FLAG = "--distill"


class OptionalDistillCommand(TyperCommand):
    """A command that accepts `--distill` without a weight and then uses the default weight."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Add the default weight to a bare `--distill`: Typer has no optional option values."""
        if DISTILL_FLAG not in args:
            return super().parse_args(ctx, args)
        from ..deploy.finetune import DEFAULT_DISTILL_WEIGHT

        following = [*args, DISTILL_FLAG][1:]
        words = [
            f"{DISTILL_FLAG}={DEFAULT_DISTILL_WEIGHT:g}"
            if word == DISTILL_FLAG and looks_like_option(after)
            else word
            for word, after in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, words)


def looks_like_option(word: str) -> bool:
    """Return whether a word is an option, not a value such as a negative number."""
    return word.startswith("-") and not word[1:2].isdigit()


def add_deploy_commands(app: typer.Typer) -> None:
    """Register the commands in the order of their use."""
    app.command("pick")(pick)
    app.command("finetune", cls=OptionalDistillCommand)(finetune)
    app.command("export")(export)


def pick(
    run: RunArgument,
    out: NetworkFolderOption = Path("picked"),
    max_flops: Annotated[
        str | None, typer.Option(help="Allow at most these FLOPs: 0.4, 40% or 50M.")
    ] = None,
    max_params: Annotated[
        str | None, typer.Option(help="Allow at most these parameters: 0.4, 40% or 5M.")
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(help="Allow at most this latency in milliseconds, as the search measured."),
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option(help="Require this validation accuracy, in (0, 1].")
    ] = None,
    knee: Annotated[bool, typer.Option("--knee", help="Pick the knee of the front.")] = False,
    trial: Annotated[
        int | None, typer.Option(help="Pick the network of the trial with this number.")
    ] = None,
) -> None:
    """Pick one network from a front and write it to a folder.

    The command picks the best validation accuracy within the limits and prints why. If only
    --min-accuracy is given, it picks the fewest FLOPs.
    """
    from ...spaces.cost.target import parse_size
    from ..results.selection import SelectionCriteria
    from .handlers import pick_point

    flops, params = parse_size("--max-flops", max_flops), parse_size("--max-params", max_params)
    criteria = SelectionCriteria(flops, params, min_accuracy, knee, trial, max_latency_ms)
    pick_point(run, criteria, out)


def finetune(
    folder: PickedFolderArgument,
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    epochs: Annotated[
        float, typer.Option(help="Train for this many epochs; fractions are allowed.")
    ] = 40.0,
    distill: Annotated[
        float | None,
        typer.Option(
            help="Weight the distillation loss of the dense network by this, in [0, 1]. Without a "
            "number: 0.7. Default: 0.7 if the weights of the dense network are available, else 0."
        ),
    ] = None,
    learning_rate: Annotated[
        float, typer.Option(help="Set the peak of the cosine learning rate.")
    ] = 0.02,
    batch_size: Annotated[
        int, typer.Option(help="Set the batch size, summed over all processes.")
    ] = 128,
    seed: Annotated[
        int, typer.Option(help="Seed all randomness. The same seed gives the same network.")
    ] = 0,
    weights: Annotated[
        Path | None,
        typer.Option(help="Distill from the weights of the dense network in this file."),
    ] = None,
    model: OwnModelOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the result to this new folder. Default: replace DIR's network."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help=f"{MEAN_HELP} Default: as the recipe states.")
    ] = None,
    std: StdOption = None,
    augment: Annotated[
        str | None, typer.Option(help=f"{AUGMENT_HELP} Default: as the recipe states.")
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            help="State what the network returns: scores or probabilities. Default: as the recipe "
            "states."
        ),
    ] = None,
) -> None:
    """Fine-tune a picked network in full.

    The command keeps the weights with the best validation accuracy and reads the test split once,
    at the end. After a stop, the same command continues.

    Several GPUs or processes: torchrun --nproc-per-node 4 -m paretoprune finetune DIR ...
    """
    from ..deploy.finetune import finetune_command
    from ..deploy.finetune_request import FineTuneRequest

    request = FineTuneRequest(
        folder=folder,
        data=data,
        epochs=epochs,
        distill=distill,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        weights=weights,
        model=model,
        out=out,
        mean=mean,
        std=std,
        augment=augment,
        outputs=outputs,
    )
    raise typer.Exit(finetune_command(request))


def export(
    folder: PickedFolderArgument,
    to: Annotated[str, typer.Option(help="Export to torch (torch.export, .pt2) or onnx.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Write this file. Default: DIR/model.pt2 or DIR/model.onnx."),
    ] = None,
    batch: Annotated[
        str, typer.Option(help="Fix the batch size to this number, or leave it dynamic.")
    ] = "dynamic",
    threads: Annotated[
        int, typer.Option(help="Measure the latency with this many CPU threads.")
    ] = 1,
    model: OwnModelOption = None,
) -> None:
    """Export a picked network to torch.export or ONNX.

    The command checks that the file gives the outputs of the eager network and measures the
    latency of both the pruned and the dense network.
    """
    from ..deploy.export import ExportRequest, export_command

    export_command(ExportRequest(folder, to, out, batch, threads, model))
