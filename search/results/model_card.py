"""The model card of a picked network: its figures beside the dense one's, and how to load it."""

from __future__ import annotations

from ...spaces.output_forms import PROBABILITIES, SCORES, WHOLE
from ...spaces.records.pareto_front import Dense
from ...spaces.records.recipe import Figures, FineTune, Recipe
from .formatting import maybe, words

LOADING = """## Load it

```python
import paretoprune as pp
model = pp.load({folder!r}{dense})  # a plain torch.nn.Module, in eval mode
{outputs}  # float32 {inputs} -> [N, {classes}]
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
    data, same = measured_on(recipe)
    before = (f"{dense.accuracy:.4f}", maybe(dense.test_accuracy)) if same else ("", "")
    rows = [
        ("accuracy, validation", before[0], f"{figures.accuracy:.4f}"),
        ("accuracy, test", before[1], maybe(figures.test_accuracy)),
        ("FLOPs (MACs)", f"{dense.macs:,}", share(figures.macs, figures.flops_fraction)),
        ("parameters", f"{dense.params:,}", share(figures.params, figures.params_fraction)),
        ("ms an image, batch 1", *latencies(dense, figures)),
    ]
    lines = ["| | dense | pruned |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows if any(row[1:])]
    if data:
        lines += ["", f"Accuracies are on {data}."]
    return "\n".join(lines) + "\n"


def measured_on(recipe: Recipe) -> tuple[str, bool]:
    """The data of the figures, and whether the dense network was measured on the same."""
    source, tuned = recipe.source, recipe.fine_tune
    name = tuned.data if tuned else source.data
    hashes = {source.data_sha256, tuned.data_sha256 if tuned else source.data_sha256} - {None}
    said = "data passed in from Python" if name == "user" else name and f"`{name}`"
    return said or "", len(hashes) < 2


def share(count: int, fraction: float) -> str:
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
    lines += [tuned(done) for done in recipe.fine_tunes]
    return " ".join(lines) + "\n"


def tuned(done: FineTune) -> str:
    """The full fine-tune in one sentence."""
    taught = f", distilled with weight {done.distill:g}" if done.distill else ""
    return (
        f"Fine-tuned for {counted(done.epochs)} at learning rate {done.learning_rate:g}{taught}; "
        f"kept: {kept(done)}, the best on validation (before: {done.accuracy_before:.4f})."
    )


def kept(done: FineTune) -> str:
    """Which weights a fine-tune left."""
    return f"epoch {done.best_epoch:g}" if done.best_epoch else "what it began with"


def counted(epochs: float) -> str:
    """So many epochs."""
    return f"{epochs:g} epoch" + ("" if epochs == 1 else "s")


def loading(recipe: Recipe, folder: str) -> str:
    """The lines that load the network, and what it takes."""
    source = recipe.source
    builtin = source.name and (":" not in source.name or source.name.startswith("torchvision:"))
    shape = ", ".join(map(str, ("N", *source.input_shape)))
    values = SCORES if source.outputs == SCORES else PROBABILITIES
    text = LOADING.format(
        folder=folder,
        outputs=f"{values} = {source.element.replace(WHOLE, 'model(images)', 1)}",
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
