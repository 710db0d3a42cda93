"""The command line. Nothing heavy is imported here: each command imports what it needs.

Every user's mistake ends as one line on stderr and exit code 2.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...spaces.errors import UserError, on_command_line
from ...trainers.data.image_options import AUGMENT_HELP, MEAN_HELP, STD_HELP
from ..config.errors import DiskFullError, WorkersDiedError, is_disk_full
from ..config.settings import SearchSettings
from .deploy_commands import add_deploy_commands
from .options import (
    LIST_OPTION_TYPES,
    SINGLE_POLICY_SETTINGS,
    add_settings_options,
    settings_from_options,
    settings_set_by_user,
)
from .report_commands import REPORT_COMMANDS
from .sweep_commands import add_sweep_commands

PATH_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
MAX_PATH_SHOWN = 200  # of a path in a message

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Search pruning policies for the Pareto front of accuracy against FLOPs and parameters. "
    "FLOPs are MACs: multiply-adds of convolutions and linear layers, as the papers count them.",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; turn its errors into one line and an exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with on_command_line():
        code = exit_code(words)
    sys.stdout.flush()
    sys.exit(code)


def exit_code(words: Sequence[str]) -> int:
    """Of a command, whose error is one line by then."""
    code = 0
    try:
        say_what_is_given_twice(words)
        code = app(list(words), standalone_mode=False) or 0
    except UserError as error:
        code = print_error(str(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        code = report_error(error, words)
    return code


def say_what_is_given_twice(words: Sequence[str]) -> None:
    """The parser takes the last value of an option in silence."""
    names = [word.partition("=")[0] for word in words if word.startswith("--")]
    for name in dict.fromkeys(names):
        if names.count(name) > 1 and name[2:] not in LIST_OPTION_TYPES:
            print(f"{name} is given more than once; the last one holds", file=sys.stderr)


def report_error(error: Exception, words: Sequence[str]) -> int:
    """The parser's own complaints in one line; anything else is ours and keeps its traceback."""
    if isinstance(error, (DiskFullError, WorkersDiedError)):
        return print_error(str(error), 1)
    if is_disk_full(error):
        return print_error(f"no room is left to write to ({error}); make room, then try again", 1)
    if isinstance(error, OSError) and error.errno in PATH_ERRNOS:
        return print_error(path_error_message(error), 2)
    message = getattr(error, "format_message", None)
    if message is None:
        raise error
    said = f"{message().rstrip('. ')}{offending_value(words, error)}"
    return print_error(f"{said}; see {command_with_help(words)} --help", 2)


def path_error_message(error: OSError) -> str:
    """The one line about a path that the system lets nobody, or not this user, use."""
    path = str(error.filename)
    path = path if len(path) <= MAX_PATH_SHOWN else f"{path[:MAX_PATH_SHOWN]}..."
    return (
        f"a path must be one that you may use, got {path} ({error.strerror}); mend its "
        "permissions, or name another"
    )


def offending_value(words: Sequence[str], error: Exception) -> str:
    """What was written for the option of an error, where the parser does not say it."""
    names = getattr(getattr(error, "param", None), "opts", ())
    for word, after in zip(words, [*words, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name in names:
            return f", got {value if equals else after!r}"
    return ""


def command_with_help(words: Sequence[str]) -> str:
    """The command whose help says how the words should have been."""
    known = {command.name for command in app.registered_commands}
    return " ".join(["paretoprune", *(word for word in words[:1] if word in known)])


def print_error(text: str, code: int) -> int:
    """One line on stderr."""
    print(" ".join(text.split()), file=sys.stderr)
    return code


def search(
    context: typer.Context,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the run in this folder: nothing finished is run twice."),
    ] = None,
    **options: Any,
) -> None:
    """Search: prune, fine-tune and measure many policies; write the front to a run folder."""
    from .handlers import run_search

    raise typer.Exit(run_search(settings_set_by_user(context, options), resume))


app.command("search")(add_settings_options(search))
add_sweep_commands(app)


for name, command in REPORT_COMMANDS.items():
    app.command(name)(command)


def prune(
    policy: Annotated[str, typer.Option(help="A preset, a control, or a policy in FILE.json.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder for the network.")],
    min_accuracy: Annotated[
        float | None, typer.Option(help="Stop before validation accuracy falls below this.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of a gradual schedule.")] = None,
    refit: Annotated[
        bool | None,
        typer.Option("--refit/--no-refit", help="Refit what a cut leaves to the dense network."),
    ] = None,
    **options: Any,
) -> None:
    """Prune by one policy alone, without a search; the same command goes on after a stop."""
    from ..driver.single_policy import PruneRequest, prune_command, resolve_policy

    settings = SearchSettings(**settings_from_options(options))
    asked = resolve_policy(policy, settings.target(), steps=steps, refit=refit)
    request = PruneRequest(settings, asked, out, min_accuracy)
    raise typer.Exit(prune_command(request))


app.command("prune")(add_settings_options(prune, SINGLE_POLICY_SETTINGS))


@app.command("train")
def train(
    model: Annotated[str, typer.Option(help="A zoo name, torchvision:NAME or module:function.")],
    data: Annotated[str, typer.Option(help="digits, cifar10:DIR, folder:DIR, ...")],
    out: Annotated[Path, typer.Option(help="The network's file, NAME.safetensors.")],
    epochs: Annotated[float, typer.Option(help="Epochs; fractions are allowed.")] = 30.0,
    weights: Annotated[Path | None, typer.Option(help="Start from these weights.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the cosine.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same network.")] = 0,
    download: Annotated[bool, typer.Option("--download", help="Fetch the data first.")] = False,
    mean: Annotated[str | None, typer.Option(help=f"{MEAN_HELP}; default: by the data.")] = None,
    std: Annotated[str | None, typer.Option(help=STD_HELP)] = None,
    augment: Annotated[
        str | None, typer.Option(help=f"{AUGMENT_HELP}; default: by the data.")
    ] = None,
    outputs: Annotated[
        str,
        typer.Option(help="What the network returns: scores or probabilities."),
    ] = "scores",
) -> None:
    """Train a dense baseline; run the same command again to go on after an interruption."""
    from ...trainers.data.image_options import image_options
    from ...trainers.training.train_dense import DenseTrainingSpec
    from ..deploy.train_command import train_command

    images = image_options(mean, std, augment)
    job = DenseTrainingSpec(
        model, data, out, seed=seed, weights=weights, images=images, outputs=outputs
    )
    code = train_command(job, epochs=epochs, learning_rate=learning_rate, download=download)
    raise typer.Exit(code)


@app.command("cache")
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete what is kept.")] = False,
) -> None:
    """Show where decoded data are kept and how large they are; PARETOPRUNE_CACHE moves them."""
    from ...trainers.data.cache import cache_folder, cache_size_bytes, clear_cache

    size = cache_size_bytes() / 2**20
    if clear:
        clear_cache()
    print(f"{cache_folder()}: {size:,.0f} MiB of decoded data{' deleted' if clear else ''}")


@app.command("inspect")
def inspect_model(
    model: Annotated[str, typer.Option(help="A zoo name, torchvision:NAME or module:function.")],
    input_shape: Annotated[
        str, typer.Option("--input", help="Shape of one input: channels,height,width.")
    ] = "",
    classes: Annotated[int, typer.Option(help="Classes of the network's head.")] = 0,
    keep: Annotated[list[str] | None, typer.Option(help="Layers never cut; repeatable.")] = None,
    min_channels: Annotated[int, typer.Option(help="Channels that every group keeps.")] = 1,
    round_to: Annotated[int, typer.Option(help="Kept widths are multiples of this.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a network's groups, atoms and price; no data needed."""
    from ..driver.inspection import InspectionRequest, inspect_network

    asked = InspectionRequest(model, input_shape, classes, tuple(keep or ()), as_json)
    inspect_network(asked, min_channels=min_channels, round_to=round_to)


@app.command("sensitivity")
def sensitivity(
    model: Annotated[str, typer.Option(help="A zoo name, torchvision:NAME or module:function.")],
    data: Annotated[str, typer.Option(help="digits, cifar10:DIR, folder:DIR, ...")],
    weights: Annotated[Path | None, typer.Option(help="Weights of the dense network.")] = None,
    score: Annotated[str, typer.Option(help="The atoms it ranks lowest go first.")] = "taylor",
    combine: Annotated[
        str, typer.Option(help="sum, mean, max or later: of coupled layers.")
    ] = "sum",
    probe: Annotated[
        str, typer.Option(help="eval, or batch: norms use batch statistics.")
    ] = "eval",
    images: Annotated[int, typer.Option(help="Calibration images, from train.")] = 2048,
    out: Annotated[Path, typer.Option(help="The folder of the curves.")] = Path("sensitivity"),
    mean: Annotated[str | None, typer.Option(help=f"{MEAN_HELP}; default: by the data.")] = None,
    std: Annotated[str | None, typer.Option(help=STD_HELP)] = None,
    outputs: Annotated[
        str,
        typer.Option(help="What the network returns: scores or probabilities."),
    ] = "scores",
) -> None:
    """Show how much the loss rises as each group is cut; run it again to go on after a stop."""
    from ...spaces.policy.loss_curves import CurveSettings
    from ...spaces.policy.policy import COMBINATIONS, check_choice
    from ..driver.sensitivity import SensitivityRequest, sensitivity_command

    check_choice("--combine", combine, COMBINATIONS)
    asked = SensitivityRequest(model, data, weights, score, combine, out, mean, std, outputs)
    raise typer.Exit(sensitivity_command(asked, CurveSettings(probe=probe, images=images)))


add_deploy_commands(app)


if __name__ == "__main__":
    main()
