"""How an ensemble is measured: what is sampled, what is fitted, and when it is enough."""

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
BACKWARD_COST = 4  # images that a forward and a backward of one count for
SMALL_SET_IMAGES = 64  # images under one mask, where images are few: more masks tell more
DEFAULT_SAMPLES = {"sample": 32_768, "batch": 2_048, "gradient": 8_192}  # masks, unless limited


@dataclass(frozen=True, slots=True)
class EnsembleSettings:
    """One way to measure an ensemble. The presets of the three scores are in PRESETS below."""

    per: str = "sample"  # what carries one mask: a sample, the whole set, a sample's gradient
    keep: float = 0.9  # probability that an atom is kept
    spread: float = 0.0  # each mask's own probability is uniform in keep +- spread
    draw: str = "bernoulli"
    transform: str = "log1p"  # of losses
    measure: str = "loss"  # or the accuracy lost; of whole sets
    variant: str = "mean"  # the score: a coefficient, its absolute value, or its square
    joined: bool = False  # masked gradients: fit the losses too, the mean gradient as the prior
    prior: str = "taylor"  # what the ridge shrinks towards
    norms: str = "running"  # batch norms while probing: as trained, or on each batch's statistics
    curvature: bool = False  # a column for each group's squared removed share
    images: int = 2_048  # of train, at most
    batch: int = 256  # images run at once; halved when memory runs out
    samples: int | None = None  # masks, at most; None: ENOUGH
    seconds: float | None = None  # of measuring, at most
    agreement: float = 0.95  # enough when two halves of the samples rank the atoms so much alike

    def __post_init__(self) -> None:
        """Refuse values that nothing can be measured with."""
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
                f"ensemble measure 'accuracy' must be of whole sets, got per {self.per!r}; "
                "a single sample is right or wrong, so use per='batch' or measure='loss'"
            )
        if self.joined and self.per != "gradient":
            raise UserError(
                f"ensemble joined must come with per 'gradient', got {self.per!r}; "
                "only masked gradients can be joined with losses"
            )

    @property
    def max_samples(self) -> int:
        """The limit on masks."""
        return DEFAULT_SAMPLES[self.per] if self.samples is None else self.samples

    def limited_to_images(self, images: int) -> EnsembleSettings:
        """The same, measured on no more images than this in all (a mask's whole set counts)."""
        if self.per == "gradient":
            images //= BACKWARD_COST
        if self.per != "batch":
            return replace(self, samples=max(16, min(images, self.max_samples)))
        each = min(self.images, SMALL_SET_IMAGES)
        return replace(self, images=each, samples=max(16, min(images // each, self.max_samples)))

    @property
    def fits_losses(self) -> bool:
        """Whether a linear model is fitted to losses (masked gradients alone are averaged)."""
        return self.per != "gradient" or self.joined


ENSEMBLE_PRESETS = {  # benchmarks/ensembles measures them beside others
    "ensemble": EnsembleSettings(keep=0.98, variant="square"),
    "ensemble-batch": EnsembleSettings(  # Sandor et al. 2020
        per="batch", transform="plain", prior="none", images=512
    ),
    "ensemble-gradient": EnsembleSettings(per="gradient", variant="square", norms="batch"),
}
