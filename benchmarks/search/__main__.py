"""Fill the cells of a table, print it, or draw it."""

from __future__ import annotations

import argparse
import json
import os
import platform
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.cells import fill
from benchmarks.scene import baseline
from benchmarks.search.contenders import CONTENDERS, cell_name, measure
from benchmarks.search.plot import draw
from benchmarks.search.rules import Rules
from benchmarks.search.table import table
from paretoprune.trainers.data.cache import cache_folder

RESULTS = Path("benchmarks/results")
SEEDS = (0, 1, 2)  # whose cells are missing until they are there


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, limit in (("wall", "minutes"), ("images", "images")):
        command = commands.add_parser(name, help=f"equal {name} for every contender")
        default = getattr(Rules(name), limit)  # type: ignore[arg-type]
        command.add_argument(f"--{limit}", type=type(default), default=default)
        command.add_argument("--epochs", type=float, default=1.0, help="of every fine-tune")
        command.add_argument("--workers", type=int, default=2)
        command.add_argument("--seeds", default=",".join(map(str, SEEDS)))
        command.add_argument("--contenders", default=",".join(CONTENDERS))
        command.add_argument("--max-seconds", type=float, help="begin no cell after these")
        command.add_argument("--network", default="resnet20", help="a baseline")
        command.add_argument("--out", type=Path, help="default: by table and network, in results")
        command.add_argument("--work", type=Path, default=cache_folder() / "search_benchmark")
        command.add_argument(
            "--continue", action="store_true", help="fill what is missing: what it does anyway"
        )
    plot = commands.add_parser("plot", help="the fronts of all contenders as one SVG")
    plot.add_argument("--results", type=Path, default=RESULTS / "search_wall.json")
    plot.add_argument("--out", type=Path, default=Path("docs/figures/search.svg"))
    asked = parser.parse_args()
    if asked.command == "plot":
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(draw(json.loads(asked.results.read_text())))
        return
    print(table(run(asked, asked.command)))


def run(asked: argparse.Namespace, name: Literal["wall", "images"]) -> dict[str, Any]:
    """Fill the cells that were asked for, seed by seed; the results name all that are missing."""
    limits = {key: getattr(asked, key) for key in ("minutes", "images") if hasattr(asked, key)}
    rules = Rules(name, epochs=asked.epochs, workers=asked.workers, **limits)
    scene = baseline(asked.network)
    of = "" if asked.network == "resnet20" else f"_{asked.network}"
    out = asked.out or RESULTS / f"search_{name}{of}.json"
    about = {**scene.about, **rules.about()}
    if name == "images":  # which no machine makes more or fewer: each cell says its own
        about.pop("torch")
    else:  # what twenty minutes pay for
        machine = {"cores": os.cpu_count(), "machine": platform.machine()}
        about["machine"] = {**machine, "bf16": scene.machine.bf16}
    refuse_others(out, about)
    seeds, names = [int(seed) for seed in asked.seeds.split(",")], chosen(asked.contenders)
    cells = {
        cell_name(contender, seed): partial(measure, contender, seed, rules, scene, asked.work)
        for seed in sorted({*SEEDS, *seeds})
        for contender in CONTENDERS
    }
    only = {cell_name(contender, seed) for seed in seeds for contender in names}
    return fill(out, about, cells, max_seconds=asked.max_seconds, only=only)


def chosen(names: str) -> list[str]:
    """The contenders asked for, in their own order."""
    asked = names.split(",")
    for name in asked:
        if name not in CONTENDERS:
            raise SystemExit(
                f"--contenders must be some of {', '.join(CONTENDERS)}, got {name!r}; pick these"
            )
    return [name for name in CONTENDERS if name in asked]


def refuse_others(out: Path, about: dict[str, Any]) -> None:
    """Hours of cells are not to be begun anew because of another option."""
    if not out.exists():
        return
    found = json.loads(out.read_text())
    for name, value in json.loads(json.dumps(about)).items():
        if found.get(name) != value:
            raise SystemExit(
                f"--out must hold results of the same rules, got {out} with "
                f"{name} = {found.get(name)!r} instead of {value!r}; name another file"
            )


if __name__ == "__main__":
    main()
