"""Resume a run. Code that a run folder names is never imported: the user must name it again."""

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

CHANGEABLE_SETTINGS = (  # may differ in a resumed run
    "workers",
    "address",
    "gpus_per_trial",
    "cpus_per_trial",
    "max_minutes",
    "trial_timeout",
    "quiet",
    "json",
)
IMAGES = "images"  # field of config.json: mean, std and augmentation in use


def resumed_settings(
    config: dict[str, Any],
    repeated: dict[str, Any],
    *,
    model: nn.Module | None,
    data: DataSplits | None,
) -> tuple[SearchSettings, tuple[Plugin, ...]]:
    """Return the settings and plugins of a run that is resumed.

    Args:
        config: The run's config.json.
        repeated: The options that the user gave again.
        model: The model object, if the run began with one.
        data: The data object, if the run began with one.

    Raises:
        UserError: an option differs from the run's, or one that must be repeated is missing.
    """
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
        option = changed[0].replace("_", "-")
        raise UserError(
            f"--resume keeps the run's settings, got another --{option}; "
            "leave it out, or start a new search"
        )
    changeable = {name: value for name, value in repeated.items() if name in CHANGEABLE_SETTINGS}
    trials = check_trials_not_reduced(repeated.get("trials", settings.trials), settings)
    plugins = resumed_plugins(config["plugins"], repeated.get("plugin", ()))
    settings = replace(settings, trials=trials, **changeable)
    settings.check()
    return settings, plugins


def with_kept(data: DataSplits, config: dict[str, Any]) -> DataSplits:
    """Return the data with the normalisation and augmentation that the run began with."""
    try:
        return with_options(data, kept_images(config))
    except UserError:
        return data  # other images; the check of the data refuses them


def kept_images(config: dict[str, Any]) -> ImageOptions:
    """Read normalisation and augmentation from config.json; older runs flipped folders."""
    stored = config.get(IMAGES)
    if stored is not None:
        return record_from_json(ImageOptions, stored, f"config.json, {IMAGES},")
    is_folder = not config["data_given"] and config["settings"]["data"].startswith("folder:")
    return ImageOptions(augment="flip-crop" if is_folder else None)


def with_absolute_paths(repeated: dict[str, Any]) -> dict[str, Any]:
    """Make paths and URLs absolute, as in config.json."""
    paths: dict[str, Any] = {}
    if repeated.get("artifacts") is not None:
        paths["artifacts"] = absolute_url(repeated["artifacts"])
    if repeated.get("out") is not None:
        paths["out"] = Path(repeated["out"]).resolve()
    return {**repeated, **paths}


def check_trials_not_reduced(trials: int, settings: SearchSettings) -> int:
    """Refuse fewer trials; a plan may grow, since a planned trial depends only on its index."""
    if trials < settings.trials:
        raise UserError(
            f"--trials may only grow with --resume, got {trials} of {settings.trials}; "
            "leave it out, or start a new search"
        )
    return trials


def check_object_repeated(name: str, was_given: bool, is_given: bool) -> None:
    """Require an object if and only if the run began with one."""
    if was_given and not is_given:
        raise UserError(
            f"this run's {name} came from Python and must be passed again, got none; "
            f"call paretoprune.resume(run, model, data)"
        )
    if is_given and not was_given:
        raise UserError(
            f"this run's {name} must be loaded by its name, got an object; leave {name} out"
        )


def check_name_repeated(name: str, stored: str, repeated: str | None, was_given: bool) -> None:
    """Require `module:function` again; a built-in name may be repeated."""
    if was_given:
        return
    if repeated is not None and repeated != stored:
        raise UserError(
            f"--{name} must be the run's {stored}, got {repeated}; "
            "leave it out, or start a new search"
        )
    if repeated is None and imports_code(stored):
        raise UserError(
            f"--{name} must be repeated to resume, since code that a run folder names is never "
            f"imported, got none; add --{name} {stored}"
        )


def imports_code(name: str) -> bool:
    """Return whether a name is `module:function` of the user's own code."""
    return ":" in name and name.split(":")[0] not in BUILT_IN_SOURCES


BUILT_IN_SOURCES = ("torchvision", "cifar10", "cifar100", "mnist", "fashion-mnist", "folder")


def resumed_plugins(
    stored: list[dict[str, str]], repeated: tuple[Path, ...]
) -> tuple[Plugin, ...]:
    """Return the plugins of the run, which the user must repeat unchanged."""
    found = {plugin.sha256: plugin for plugin in map(read_plugin, repeated)}
    for record in stored:
        if record["sha256"] not in found:
            paths = [plugin.path for plugin in found.values()]
            fault = "another content" if record["path"] in paths else "none"
            raise UserError(
                f"a run with a plugin must be resumed with the same one, got {fault}; "
                f"add --plugin {record['path']}, unchanged"
            )
    if len(found) > len(stored):
        raise UserError(
            "a resumed run accepts no new --plugin, got one; start a new search with it"
        )
    return tuple(found.values())


def resume_command(root: Path, config: dict[str, Any]) -> str:
    """Return the command that resumes this run."""
    if config["model_given"] or config["data_given"]:
        return f"paretoprune.resume({str(root)!r}, model, data)"
    words = ["paretoprune search --resume", str(root)]
    for name in ("model", "data"):
        if imports_code(config["settings"][name]):
            words += [f"--{name}", config["settings"][name]]
    for plugin in config["plugins"]:
        words += ["--plugin", plugin["path"]]
    return " ".join(words)
