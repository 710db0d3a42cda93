"""The model card of a picked network: its figures beside the dense one's, and how to load it."""

from __future__ import annotations

from ...spaces.output_forms import PROBABILITIES, SCORES, WHOLE
from ...spaces.records.pareto_front import DenseMetrics
from ...spaces.records.recipe import FineTuneRecord, Recipe, RecipeMetrics
from .formatting import describe_policy, format_optional

LOADING_TEMPLATE = """## Load it

```python
import paretoprune as pp
model = pp.load({folder!r}{dense})  # a plain torch.nn.Module, in eval mode
{outputs}  # float32 {inputs} -> [N, {classes}]
```
"""
FILES_SECTION = """## Files

- `model.safetensors`: the weights; `recipe.json`: what `pp.load` needs besides, and all figures.
"""
TEACHER_LINE = """\
- `dense.safetensors`: the dense network, the teacher of `paretoprune finetune --distill`. Nothing
  else needs it: it may be deleted.
"""


def render_model_card(recipe: Recipe, folder: str) -> str:
    """README.md of the folder."""
    name = recipe.source.name or "a network passed in from Python"
    parts = [
        f"# {name}, pruned\n",
        metrics_table(recipe),
        describe_history(recipe),
        loading_section(recipe, folder),
    ]
    parts.append(FILES_SECTION + (TEACHER_LINE if recipe.dense_sha256 else ""))
    made = ", ".join(f"{name} {version}" for name, version in recipe.versions.items())
    return "\n".join(part for part in parts if part) + f"\nMade with {made}.\n"


def metrics_table(recipe: Recipe) -> str:
    """The figures against dense."""
    figures, dense = recipe.figures, recipe.dense
    if figures is None or dense is None:
        return ""
    data, same = measurement_data(recipe)
    before = (f"{dense.accuracy:.4f}", format_optional(dense.test_accuracy)) if same else ("", "")
    rows = [
        ("accuracy, validation", before[0], f"{figures.accuracy:.4f}"),
        ("accuracy, test", before[1], format_optional(figures.test_accuracy)),
        ("FLOPs (MACs)", f"{dense.macs:,}", format_count(figures.macs, figures.flops_fraction)),
        ("parameters", f"{dense.params:,}", format_count(figures.params, figures.params_fraction)),
        ("ms an image, batch 1", *format_latencies(dense, figures)),
    ]
    lines = ["| | dense | pruned |", "|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows if any(row[1:])]
    if data:
        lines += ["", f"Accuracies are on {data}."]
    return "\n".join(lines) + "\n"


def measurement_data(recipe: Recipe) -> tuple[str, bool]:
    """The data of the figures, and whether the dense network was measured on the same."""
    source, tuned = recipe.source, recipe.fine_tune
    name = tuned.data if tuned else source.data
    hashes = {source.data_sha256, tuned.data_sha256 if tuned else source.data_sha256} - {None}
    said = "data passed in from Python" if name == "user" else name and f"`{name}`"
    return said or "", len(hashes) < 2


def format_count(count: int, fraction: float) -> str:
    """A size, and what it is of the dense one."""
    return f"{count:,} ({fraction:.1%})"


def format_latencies(dense: DenseMetrics, metrics: RecipeMetrics) -> tuple[str, str]:
    """Both latencies, measured in one session on the machine of the search."""
    return tuple(  # type: ignore[return-value]
        "" if ms is None else f"{ms:.2f}" for ms in (dense.latency_ms, metrics.latency_ms)
    )


def describe_history(recipe: Recipe) -> str:
    """How the network came about."""
    lines = [f"Pruned by the policy {describe_policy(recipe.policy)}."]
    lines += [describe_fine_tune(done) for done in recipe.fine_tunes]
    return " ".join(lines) + "\n"


def describe_fine_tune(done: FineTuneRecord) -> str:
    """The full fine-tune in one sentence."""
    taught = f", distilled with weight {done.distill:g}" if done.distill else ""
    return (
        f"Fine-tuned for {format_epochs(done.epochs)} at learning rate "
        f"{done.learning_rate:g}{taught}; kept: {describe_kept_weights(done)}, "
        f"the best on validation (before: {done.accuracy_before:.4f})."
    )


def describe_kept_weights(done: FineTuneRecord) -> str:
    """Which weights a fine-tune left."""
    return f"epoch {done.best_epoch:g}" if done.best_epoch else "what it began with"


def format_epochs(epochs: float) -> str:
    """So many epochs."""
    return f"{epochs:g} epoch" + ("" if epochs == 1 else "s")


def loading_section(recipe: Recipe, folder: str) -> str:
    """The lines that load the network, and what it takes."""
    source = recipe.source
    builtin = source.name and (":" not in source.name or source.name.startswith("torchvision:"))
    shape = ", ".join(map(str, ("N", *source.input_shape)))
    values = SCORES if source.outputs == SCORES else PROBABILITIES
    text = LOADING_TEMPLATE.format(
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
