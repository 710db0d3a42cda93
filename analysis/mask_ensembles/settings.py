"""Settings of an ensemble: how masks are drawn, what is fitted, and when sampling stops."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...spaces.errors import UserError
from ...spaces.policy.policy import check_choice, check_range

MASK_CARRIERS = ("sample", "batch", "gradient")
DRAW_METHODS = ("bernoulli", "stratified", "antithetic")
TRANSFORMS = ("log1p", "plain")
MEASURES = ("loss", "accuracy")
VARIANTS = ("mean", "absolute", "square")
PRIORS = ("taylor", "none")
NORM_MODES = ("running", "batch")
BACKWARD_COST = 4  # a forward and a backward pass of one image count as four images
SMALL_SET_IMAGES = (
    64  # images per mask under an image limit: more masks are worth more than images
)
DEFAULT_SAMPLES = {"sample": 32_768, "batch": 2_048, "gradient": 8_192}  # default limit of masks


@dataclass(frozen=True, slots=True)
class EnsembleSettings:
    """How an ensemble is measured; `ENSEMBLE_PRESETS` holds the settings of the three scores."""

    per: str = "sample"  # one mask per sample, per whole set, or per sample with gradient
    keep: float = 0.9  # probability that an atom is kept
    spread: float = 0.0  # each mask's own probability is uniform in keep +- spread
    draw: str = "bernoulli"
    transform: str = "log1p"  # of losses
    measure: str = "loss"  # or accuracy, for whole sets only
    variant: str = "mean"  # the score: a coefficient, its absolute value, or its square
    joined: bool = False  # with gradients: also fit the losses, with the mean gradient as prior
    prior: str = "taylor"  # prior mean of the ridge regression
    norms: str = "running"  # statistics of batch norms: running or batch
    curvature: bool = False  # adds the squared removed share of each group as a feature
    images: int = 2_048  # at most, from the train split
    batch: int = 256  # images per batch; halved when memory runs out
    samples: int | None = None  # at most so many masks; None: DEFAULT_SAMPLES
    seconds: float | None = None  # time limit; None: no limit
    agreement: float = 0.95  # stop at this rank correlation of the scores of two halves

    def __post_init__(self) -> None:
        """Validate the values."""
        check_choice("ensemble per", self.per, MASK_CARRIERS)
        check_choice("ensemble draw", self.draw, DRAW_METHODS)
        check_choice("ensemble transform", self.transform, TRANSFORMS)
        check_choice("ensemble measure", self.measure, MEASURES)
        check_choice("ensemble variant", self.variant, VARIANTS)
        check_choice("ensemble prior", self.prior, PRIORS)
        check_choice("ensemble norms", self.norms, NORM_MODES)
        check_range("ensemble keep", self.keep, 0.01, 0.999)
        check_range("ensemble spread", self.spread, 0.0, min(self.keep, 1 - self.keep))
        check_range("ensemble agreement", self.agreement, 0.0, 1.0)
        check_range("ensemble images", self.images, 1, 10_000_000)
        check_range("ensemble batch", self.batch, 1, 1_000_000)
        check_range("ensemble samples", self.max_samples, 16, 100_000_000)
        check_range("ensemble seconds", self.seconds or 0.0, 0.0, 1e9)
        if self.measure == "accuracy" and self.per != "batch":
            raise UserError(
                f"ensemble measure 'accuracy' must come with per='batch', got per={self.per!r}; "
                "use per='batch' or measure='loss'"
            )
        if self.joined and self.per != "gradient":
            raise UserError(
                f"ensemble joined must come with per='gradient', got per={self.per!r}; "
                "use per='gradient' or joined=False"
            )

    @property
    def max_samples(self) -> int:
        """The limit of masks."""
        return DEFAULT_SAMPLES[self.per] if self.samples is None else self.samples

    def limited_to_images(self, images: int) -> EnsembleSettings:
        """The same settings with at most so many image passes in total, over all masks."""
        if self.per == "gradient":
            images //= BACKWARD_COST
        if self.per != "batch":
            return replace(self, samples=max(16, min(images, self.max_samples)))
        each = min(self.images, SMALL_SET_IMAGES)
        return replace(self, images=each, samples=max(16, min(images // each, self.max_samples)))

    @property
    def fits_losses(self) -> bool:
        """Whether a linear model is fitted to losses; gradients alone are averaged."""
        return self.per != "gradient" or self.joined


ENSEMBLE_PRESETS = {  # benchmarks/ensembles compares them with others
    "ensemble": EnsembleSettings(keep=0.98, variant="square"),
    "ensemble-batch": EnsembleSettings(  # Sandor et al. 2020
        per="batch", transform="plain", prior="none", images=512
    ),
    "ensemble-gradient": EnsembleSettings(per="gradient", variant="square", norms="batch"),
}
