"""The commands from the front to a shipped network: pick, finetune, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ...trainers.data.image_options import AUGMENT_HELP, MEAN_HELP, STD_HELP

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a search.")]
PickedFolderArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder of a picked network.")
]
OwnModelOption = Annotated[
    str | None,
    typer.Option(help="module:function of the dense network, where it is your own."),
]


DISTILL_FLAG = "--distill"


class OptionalDistillCommand(TyperCommand):
    """A command whose `--distill` may stand without a weight: then it is the usual one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--distill` its weight; the parser knows values or flags, not both."""
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
    """No value: it begins as an option does, and is no negative number."""
    return word.startswith("-") and not word[1:2].isdigit()


def add_deploy_commands(app: typer.Typer) -> None:
    """Register the commands, in the order in which they are used."""
    app.command("pick")(pick)
    app.command("finetune", cls=OptionalDistillCommand)(finetune)
    app.command("export")(export)


def pick(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="A new or empty folder for the network.")] = Path(
        "picked"
    ),
    max_flops: Annotated[str | None, typer.Option(help="At most this: 0.4, 40% or 50M.")] = None,
    max_params: Annotated[str | None, typer.Option(help="At most this: 0.4, 40% or 5M.")] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="At most this, as the search measured it.")
    ] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="At least this, validation.")] = None,
    knee: Annotated[bool, typer.Option("--knee", help="The bend of the front.")] = False,
    trial: Annotated[int | None, typer.Option(help="The point of this trial.")] = None,
) -> None:
    """Pick one network from the front, say why, and write it to a folder."""
    from ...spaces.cost.target import parse_size
    from ..results.selection import SelectionCriteria
    from .handlers import pick_point

    flops, params = parse_size("--max-flops", max_flops), parse_size("--max-params", max_params)
    pick_point(
        run, SelectionCriteria(flops, params, min_accuracy, knee, trial, max_latency_ms), out
    )


def finetune(
    folder: PickedFolderArgument,
    data: Annotated[str, typer.Option(help="digits, cifar10:DIR, folder:DIR, ...")],
    epochs: Annotated[float, typer.Option(help="Epochs; fractions are allowed.")] = 40.0,
    distill: Annotated[
        float | None,
        typer.Option(
            help="Weight of the dense network's answers in the loss; 0.7 if it is there, "
            "or where no weight follows."
        ),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Peak of the cosine.")] = 0.02,
    batch_size: Annotated[int, typer.Option(help="Of all processes together.")] = 128,
    seed: Annotated[int, typer.Option(help="Same seed, same network.")] = 0,
    weights: Annotated[Path | None, typer.Option(help="Of the dense network, to distill.")] = None,
    model: OwnModelOption = None,
    out: Annotated[Path | None, typer.Option(help="A new folder instead of DIR itself.")] = None,
    mean: Annotated[str | None, typer.Option(help=f"{MEAN_HELP}; default: the recipe's.")] = None,
    std: Annotated[str | None, typer.Option(help=STD_HELP)] = None,
    augment: Annotated[
        str | None, typer.Option(help=f"{AUGMENT_HELP}; default: the recipe's.")
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(help="scores or probabilities, as the network returns; default: as pruned."),
    ] = None,
) -> None:
    """Fine-tune a picked network in full; the same command goes on after a stop.

    The weights that were best on validation are kept; the test split is read once, at the end.

    Several GPUs or processes: torchrun --nproc-per-node 4 -m paretoprune finetune DIR ...
    """
    from ..deploy.finetune import finetune_command
    from ..deploy.finetune_request import FineTuneRequest

    asked = FineTuneRequest(
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
    raise typer.Exit(finetune_command(asked))


def export(
    folder: PickedFolderArgument,
    to: Annotated[str, typer.Option(help="torch (torch.export, .pt2) or onnx.")],
    out: Annotated[Path | None, typer.Option(help="The file; DIR/model.pt2 or .onnx.")] = None,
    batch: Annotated[str, typer.Option(help="dynamic, or a fixed number of images.")] = "dynamic",
    threads: Annotated[int, typer.Option(help="Threads of the latency that is measured.")] = 1,
    model: OwnModelOption = None,
) -> None:
    """Export a picked network, checked against eager, and time it beside the dense one."""
    from ..deploy.export import ExportRequest, export_command

    export_command(ExportRequest(folder, to, out, batch, threads, model))
