"""The sections of a study file but for the space: their keys, defaults and bounds, as pydantic models."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

LARGEST_SEED = 2**32 - 1
DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?\s*(?:(\d+(?:\.\d+)?)m)?\s*(?:(\d+(?:\.\d+)?)s)?", re.ASCII)
LONGEST_DURATION = 10 * 365 * 24 * 3600.0


def parse_duration(text: object) -> float:
    """Seconds of `2h`, `10m`, `90s` or `1h30m`.

    Raises:
        ValueError: anything else.
    """
    match = DURATION.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 40 else None
    if match is None or not any(match.groups()):
        raise ValueError('must be a duration like "2h", "10m", "90s" or "1h30m"')
    hours, minutes, seconds = (float(group or 0) for group in match.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if not 0 < total <= LONGEST_DURATION:
        raise ValueError("must be longer than nothing and shorter than ten years")
    return total


Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=str)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Section(BaseModel):
    """A table of the study file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ChosenKind(Section):
    """A section whose `kind` decides which of its other keys it takes."""

    TAKES: ClassVar[dict[str, tuple[str, ...]]]
    DEFAULTS: ClassVar[dict[str, Any]]

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        """Refuse the keys that another kind takes, and fill in the defaults of those that this one takes."""
        kind: str = self.kind  # type: ignore[attr-defined]  # every subclass has one, each with choices of its own
        takes = self.TAKES[kind]
        for key, default in self.DEFAULTS.items():
            if key in takes and getattr(self, key) is None:
                object.__setattr__(self, key, default)
            elif key not in takes and getattr(self, key) is not None:
                raise ValueError(f'kind = "{kind}" does not take `{key}`; it takes {", ".join(takes) or "no other key"}')
        return self


class Data(Section):
    """Which images, and how many of the training images are set aside for validation."""

    dataset: str = Field(default="fashion-mnist", description="fashion-mnist, mnist, kmnist, or one that a component file registers")
    validation_images: Count = Field(
        default=10_000, description="set aside, stratified by class; the test images are never used in a search"
    )
    train_images: Count | None = Field(default=None, description="fewer training images, for a quick look; all the rest by default")


class Budget(Section):
    """When the search is over."""

    trials: Count = Field(description="every trial in any state counts, over all runs and workers; a continued one counts once")
    time: Duration | None = Field(default=None, description="summed over runs; when it is spent no trial starts, running ones finish")
    trial_time: Duration | None = Field(
        default=None, description="of one trial, over all continuations: then it is pruned at its last epoch, or failed if it has none"
    )
    balance: Literal["model"] | None = Field(default=None, description="the numbers of trials of the models differ by at most one")


class Limits(Section):
    """What is never trained."""

    parameters: Count | None = Field(default=None, description="a draw with more trainable parameters is replaced and not counted")


class Sampler(ChosenKind):
    """Who proposes the next configuration."""

    kind: Literal["tpe", "random", "gp", "qmc"] = Field(default="tpe", description="gp and qmc only where no parameter is conditional")
    startup_trials: Count | None = Field(
        default=None,
        description="random trials before the sampler begins to learn, in all: models under `balance` share them; 10 by default (tpe, gp)",
    )

    TAKES: ClassVar[dict[str, tuple[str, ...]]] = {"tpe": ("startup_trials",), "gp": ("startup_trials",), "random": (), "qmc": ()}
    DEFAULTS: ClassVar[dict[str, Any]] = {"startup_trials": 10}


class Pruner(ChosenKind):
    """Who ends weak trials early, among trials of the same model."""

    kind: Literal["none", "median", "percentile", "halving", "hyperband"] = Field(
        default="median", description="what a trial is compared with"
    )
    startup_trials: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="finished trials of the same model before any is pruned; 5 by default (median, percentile)"
    )
    warmup_epochs: Annotated[int, Field(ge=0, le=10_000)] | None = Field(
        default=None, description="epochs that every trial is given; 2 by default (median, percentile)"
    )
    min_trials: Count | None = Field(
        default=None, description="finished trials that must have reached the epoch; 1 by default (median, percentile)"
    )
    percentile: Annotated[float, Field(gt=0, lt=100)] | None = Field(
        default=None, description="share of the trials that is kept, in percent; 50 by default (percentile)"
    )
    min_epochs: Count | None = Field(default=None, description="epochs before the first cut; 1 by default (halving, hyperband)")
    reduction_factor: Annotated[int, Field(ge=2, le=100)] | None = Field(
        default=None, description="one in so many survives a cut; 3 by default (halving, hyperband)"
    )

    TAKES: ClassVar[dict[str, tuple[str, ...]]] = {
        "none": (),
        "median": ("startup_trials", "warmup_epochs", "min_trials"),
        "percentile": ("startup_trials", "warmup_epochs", "min_trials", "percentile"),
        "halving": ("min_epochs", "reduction_factor"),
        "hyperband": ("min_epochs", "reduction_factor"),
    }
    DEFAULTS: ClassVar[dict[str, Any]] = {
        "startup_trials": 5,
        "warmup_epochs": 2,
        "min_trials": 1,
        "percentile": 50.0,
        "min_epochs": 1,
        "reduction_factor": 3,
    }


class Finalists(Section):
    """The best few again, with fresh seeds."""

    top: Count = Field(default=3, description="so many of the best; the baseline is always one more")
    seeds: Annotated[int, Field(ge=2, le=1_000)] = Field(
        default=8, description="runs of each, at most: half of them choose the winner, half measure it"
    )


class WarmStart(Section):
    """Trials of other studies that this one begins with."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    sources: list[str] = Field(alias="from", min_length=1, description="names of studies in the same storage")
