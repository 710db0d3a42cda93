"""Resuming: what must be given again, since nothing that a run folder names is ever imported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from ...spaces.errors import UserError
from ...spaces.io.validation import record_from_json
from ...trainers.data.image_options import ImageOptions, with_options
from ...trainers.data.splits import DataSplits
from ..config.settings import SearchSettings, settings_from_json
from ..optimizer.plugins import Plugin, read_plugin
from ..storage.artifacts import absolute_url

CHANGEABLE_SETTINGS = (
    "workers",
    "address",
    "gpus_per_trial",
    "cpus_per_trial",
    "max_minutes",
    "trial_timeout",
    "quiet",
    "json",
)  # may differ in a resumed run
IMAGES = "images"  # the field of config.json: mean, std and augmentation in use


def resumed_settings(
    config: dict[str, Any],
    repeated: dict[str, Any],
    *,
    model: nn.Module | None,
    data: DataSplits | None,
) -> tuple[SearchSettings, tuple[Plugin, ...]]:
    """The settings and plugins of the run, once the user has repeated what must be repeated."""
    settings = settings_from_json(config["settings"])
    check_object_repeated("model", config["model_given"], model is not None)
    check_object_repeated("data", config["data_given"], data is not None)
    for name, was_given in (("model", config["model_given"]), ("data", config["data_given"])):
        check_name_repeated(name, getattr(settings, name), repeated.get(name), was_given)
    changed = sorted(
        name
        for name, value in with_absolute_paths(repeated).items()
        if name not in (*CHANGEABLE_SETTINGS, "model", "data", "plugin", "trials")
        and getattr(settings, name) != value
    )
    if changed:
        name = changed[0].replace("_", "-")
        raise UserError(
            f"--resume goes on with the run's own settings, got another --{name}; "
            "leave it out, or start a new search"
        )
    free = {name: value for name, value in repeated.items() if name in CHANGEABLE_SETTINGS}
    trials = check_trials_not_reduced(repeated.get("trials", settings.trials), settings)
    plugins = resumed_plugins(config["plugins"], repeated.get("plugin", ()))
    settings = replace(settings, trials=trials, **free)
    settings.check()
    return settings, plugins


def with_kept(data: DataSplits, config: dict[str, Any]) -> DataSplits:
    """The data normalised and augmented as the run began, whatever the defaults are by now."""
    try:
        return with_options(data, kept_images(config))
    except UserError:
        return data  # of other images: they are refused as other data


def kept_images(config: dict[str, Any]) -> ImageOptions:
    """The normalisation and the augmentation in config.json; runs of before flipped folders."""
    kept = config.get(IMAGES)
    if kept is not None:
        return record_from_json(ImageOptions, kept, f"config.json, {IMAGES},")
    folder = not config["data_given"] and config["settings"]["data"].startswith("folder:")
    return ImageOptions(augment="flip-crop" if folder else None)


def with_absolute_paths(repeated: dict[str, Any]) -> dict[str, Any]:
    """The options as config.json keeps them: places are absolute."""
    places: dict[str, Any] = {}
    if repeated.get("artifacts") is not None:
        places["artifacts"] = absolute_url(repeated["artifacts"])
    if repeated.get("out") is not None:
        places["out"] = Path(repeated["out"]).resolve()
    return {**repeated, **places}


def check_trials_not_reduced(trials: int, settings: SearchSettings) -> int:
    """A plan may grow: a slot is a function of its index, and the journal has what was tried."""
    if trials < settings.trials:
        raise UserError(
            f"--trials may only grow with --resume, got {trials} of {settings.trials}; "
            "leave it out, or start a new search"
        )
    return trials


def check_object_repeated(name: str, was_given: bool, is_given: bool) -> None:
    """An object passed in Python must be passed again, and only then."""
    if was_given and not is_given:
        raise UserError(
            f"this run's {name} came from Python and must be passed again, got none; "
            f"call paretoprune.resume(run, model, data)"
        )
    if is_given and not was_given:
        raise UserError(
            f"this run's {name} has a name and is loaded by it, got an object; leave {name} out"
        )


def check_name_repeated(name: str, kept: str, again: str | None, was_given: bool) -> None:
    """`module:function` must be repeated; a name may be."""
    if was_given:
        return
    if again is not None and again != kept:
        raise UserError(
            f"--{name} must be what the run began with, {kept}, got {again}; or start a new search"
        )
    if again is None and imports_code(kept):
        raise UserError(
            f"--{name} must be repeated to resume, since a run folder's word is never imported, "
            f"got none; add --{name} {kept}"
        )


def imports_code(name: str) -> bool:
    """True for `module:function` of the user's own."""
    return ":" in name and name.split(":")[0] not in BUILT_IN_SOURCES


BUILT_IN_SOURCES = ("torchvision", "cifar10", "cifar100", "mnist", "fashion-mnist", "folder")


def resumed_plugins(kept: list[dict[str, str]], again: tuple[Path, ...]) -> tuple[Plugin, ...]:
    """The plugins of the run, repeated on the command line and unchanged."""
    found = {plugin.sha256: plugin for plugin in (read_plugin(path) for path in again)}
    for record in kept:
        if record["sha256"] not in found:
            names = [plugin.path for plugin in found.values()]
            fault = "another content" if record["path"] in names else "none"
            raise UserError(
                f"a run with a plugin must be resumed with the same one, got {fault}; "
                f"add --plugin {record['path']}, unchanged"
            )
    if len(found) > len(kept):
        raise UserError("a resumed run takes no new --plugin, got one; start a new search with it")
    return tuple(found.values())


def resume_command(root: Path, config: dict[str, Any]) -> str:
    """The line that goes on with this run."""
    if config["model_given"] or config["data_given"]:
        return f"paretoprune.resume({str(root)!r}, model, data)"
    words = ["paretoprune search --resume", str(root)]
    for name in ("model", "data"):
        if imports_code(config["settings"][name]):
            words += [f"--{name}", config["settings"][name]]
    for plugin in config["plugins"]:
        words += ["--plugin", plugin["path"]]
    return " ".join(words)
