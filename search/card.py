"""The model card of a picked network: its figures beside the dense one's, and how to load it."""

from __future__ import annotations

from ..spaces.front import Dense
from ..spaces.recipe import Figures, FineTune, Recipe
from .show import maybe, words

LOADING = """## Load it

```python
import paretoprune as pp
model = pp.load({folder!r}{dense})  # a plain torch.nn.Module, in eval mode
scores = model(images)  # float32 {inputs} -> [N, {classes}]
```
"""
FILES = """## Files

- `model.safetensors`: the weights; `recipe.json`: what `pp.load` needs besides, and all figures.
"""
TEACHER = """\
- `dense.safetensors`: the dense network, the teacher of `paretoprune finetune --distill`. Nothing
  else needs it: it may be deleted.
"""


def card(recipe: Recipe, folder: str) -> str:
    """README.md of the folder."""
    name = recipe.source.name or "a network passed in from Python"
    parts = [f"# {name}, pruned\n", table(recipe), history(recipe), loading(recipe, folder)]
    parts.append(FILES + (TEACHER if recipe.dense_sha256 else ""))
    made = ", ".join(f"{name} {version}" for name, version in recipe.versions.items())
    return "\n".join(part for part in parts if part) + f"\nMade with {made}.\n"


def table(recipe: Recipe) -> str:
    """The figures against dense."""
    figures, dense = recipe.figures, recipe.dense
    if figures is None or dense is None:
        return ""
    rows = [
        ("accuracy, validation", f"{dense.accuracy:.4f}", f"{figures.accuracy:.4f}"),
        ("accuracy, test", maybe(dense.test_accuracy), maybe(figures.test_accuracy)),
        ("FLOPs (MACs)", f"{dense.macs:,}", kept(figures.macs, figures.flops_fraction)),
        ("parameters", f"{dense.params:,}", kept(figures.params, figures.params_fraction)),
        ("ms an image, batch 1", *latencies(dense, figures)),
    ]
    lines = ["| | dense | pruned |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows if any(row[1:]))]) + "\n"


def kept(count: int, fraction: float) -> str:
    """A size, and what it is of the dense one."""
    return f"{count:,} ({fraction:.1%})"


def latencies(dense: Dense, figures: Figures) -> tuple[str, str]:
    """Both latencies, measured in one session on the machine of the search."""
    return tuple(  # type: ignore[return-value]
        "" if ms is None else f"{ms:.2f}" for ms in (dense.latency_ms, figures.latency_ms)
    )


def history(recipe: Recipe) -> str:
    """How the network came about."""
    lines = [f"Pruned by the policy {words(recipe.policy)}."]
    if recipe.fine_tune is not None:
        lines.append(tuned(recipe.fine_tune))
    return " ".join(lines) + "\n"


def tuned(done: FineTune) -> str:
    """The full fine-tune in one sentence."""
    taught = f", distilled with weight {done.distill:g}" if done.distill else ""
    return (
        f"Fine-tuned for {done.epochs:g} epochs at learning rate {done.learning_rate:g}{taught}; "
        f"kept: epoch {done.best_epoch:g}, the best on validation "
        f"(before: {done.accuracy_before:.4f})."
    )


def loading(recipe: Recipe, folder: str) -> str:
    """The lines that load the network, and what it takes."""
    source = recipe.source
    builtin = source.name and (":" not in source.name or source.name.startswith("torchvision:"))
    shape = ", ".join(map(str, ("N", *source.input_shape)))
    text = LOADING.format(
        folder=folder,
        dense="" if builtin else ", model=dense",
        inputs=f"[{shape}]",
        classes=source.classes,
    )
    if not builtin:
        text += "\n`dense` is the unpruned network, with any weights: it gives the architecture.\n"
    if any(source.mean) or any(s != 1 for s in source.std):
        mean, std = (", ".join(f"{v:.4g}" for v in part) for part in (source.mean, source.std))
        text += f"\nImages are scaled to 0..1, then normalised: mean {mean}; std {std}.\n"
    return text
