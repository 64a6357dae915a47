"""Pydantic models of the sections of a study file except the space, and the texts of their errors."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from hpsearch.config.components import BUILT_IN, SELECTORS, TRAINER
from hpsearch.errors import did_you_mean
from hpsearch.formatting import many, show

LARGEST_SEED = 2**32 - 1
"""The largest seed of numpy's RandomState, which Optuna's samplers use."""
LONGEST_DURATION = 10 * 365 * 24 * 3600.0
"""The longest duration that a file can give: ten years, in seconds."""
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?\s*(?:(\d+(?:\.\d+)?)m)?\s*(?:(\d+(?:\.\d+)?)s)?", re.ASCII)

_RULES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a string in quotes",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "greater_than_equal": "must be at least {ge:,}",
    "less_than_equal": "must be at most {le:,}",
    "greater_than": "must be above {gt:g}",
    "less_than": "must be below {lt:g}",
}
"""Our texts for some error types of pydantic. For other types, pydantic's own message is used."""


def parse_duration(text: object) -> float:
    """Return the seconds of a duration such as `2h`, `10m`, `90s` or `1h30m`.

    Args:
        text: the value in the file.

    Returns:
        Seconds, above 0 and at most `LONGEST_DURATION`.

    Raises:
        ValueError: `text` is not a duration, or is longer than `LONGEST_DURATION`.
    """
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) and len(text) < 40 else None
    if match is None or not any(match.groups()):
        raise ValueError('must be a duration like "2h", "10m", "90s" or "1h30m"')
    hours, minutes, seconds = (float(group or 0) for group in match.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if not 0 < total <= LONGEST_DURATION:
        raise ValueError("must be longer than 0 s and shorter than ten years")
    return total


Duration = Annotated[float, BeforeValidator(parse_duration, json_schema_input_type=str)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class Section(BaseModel):
    """A table of a file. It cannot be changed after reading, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SectionOfKinds(Section):
    """A section whose `kind` decides which other keys are allowed.

    Attributes:
        KEYS: for each kind, the allowed keys with their defaults.
    """

    KEYS: ClassVar[dict[str, dict[str, Any]]]

    @model_validator(mode="after")
    def _check_keys_of_kind(self) -> Self:
        """Raise an error if a key belongs to another kind. Set the defaults of missing keys."""
        kind: str = self.kind  # type: ignore[attr-defined]  # every subclass has `kind`, with its own choices
        takes = self.KEYS[kind]
        for key in (key for keys in self.KEYS.values() for key in keys if key not in takes and getattr(self, key) is not None):
            raise ValueError(f'kind = "{kind}" does not take `{key}`; it takes {", ".join(takes) or "no other key"}')
        for key, default in takes.items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, default)
        return self


class Data(Section):
    """The data set and the size of the validation split."""

    dataset: str = Field(default="fashion-mnist", description="fashion-mnist, mnist, kmnist, or one that a component file registers")
    validation_images: Count = Field(
        default=10_000,
        description="training images that are held out for validation, stratified by class; a search never reads the test images",
    )
    train_images: Count | None = Field(default=None, description="number of images to train on, for a quick search; all others by default")


MIN_TRIALS = 20
"""With `stop`, a search does not end before. Fewer trials say too little about further ones."""
MIN_TRIALS_OF_MODEL = 10
"""With `balance = "until_behind"`, a model is not behind before. Fewer trials of a model say too little about it."""


class Budget(Section):
    """When the search ends. It needs `trials` or `epochs`; whatever is spent first ends it."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["trials"]}, {"required": ["epochs"]}]})

    trials: Count | None = Field(
        default=None, description="number of trials in any state, over all runs and workers; a continued trial counts once"
    )
    epochs: Count | None = Field(
        default=None,
        description="epochs of all trials; then no new trial starts, and running trials finish. Epochs that pruning saves go to more trials",
    )
    time: Duration | None = Field(default=None, description="summed over all runs; then no new trial starts, and running trials finish")
    trial_time: Duration | None = Field(
        default=None,
        description="of one trial, over all continuations; then the trial is pruned after its last epoch, or failed if it has none",
    )
    stop: Literal["auto"] | None = Field(
        default=None,
        description="the search also ends when as many trials again are expected to gain less than the standard error of the best accuracy",
    )
    balance: Literal["model", "until_behind"] | None = Field(
        default=None,
        description="the models have the same number of trials, up to a difference of one: always, or until a model is clearly behind",
    )

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        """Raise an error if nothing ends the search."""
        if self.trials is None and self.epochs is None:
            raise ValueError("needs `trials` or `epochs`: without them the search would never end")
        return self

    @property
    def max_trials(self) -> int:
        """The largest number of trials of a search that does not pause trials: each counts as an epoch at least, also if it fails before."""
        return min(count for count in (self.trials, self.epochs) if count is not None)

    def min_trials(self, max_epochs: int) -> int:
        """Return the number of trials for which the budget suffices, whatever is drawn and if nothing is pruned.

        Args:
            max_epochs: number of epochs of the longest training.

        Returns:
            The number of trials.
        """
        return self.max_trials if self.epochs is None else min(self.max_trials, -(-self.epochs // max_epochs))

    @property
    def amount(self) -> str:
        """The trials and epochs in words."""
        return " or ".join(many(count, what) for count, what in ((self.trials, "trial"), (self.epochs, "epoch")) if count is not None)


class Limits(Section):
    """Models that are never trained."""

    parameters: Count | None = Field(
        default=None, description="most trainable parameters; a larger model is drawn again and does not count"
    )


class Sampler(SectionOfKinds):
    """The method that proposes the next configuration."""

    kind: Literal["tpe", "random", "gp", "qmc"] = Field(default="tpe", description="gp and qmc need a space without conditional parameters")
    startup_trials: Count | None = Field(
        default=None,
        description="random trials before the sampler learns, shared by all models; 10 by default (tpe, gp)",
    )

    KEYS: ClassVar[dict[str, dict[str, Any]]] = {"tpe": {"startup_trials": 10}, "gp": {"startup_trials": 10}, "random": {}, "qmc": {}}


class Pruner(SectionOfKinds):
    """The method that ends weak trials early; it compares trials of the same model. median and percentile compare them at the same share
    of their epochs, halving and hyperband after the same number of epochs. asha (asynchronous successive halving) pauses weak trials at a
    share of their epochs, from the first part of the first epoch on, and continues them if they turn out to be among the best."""

    kind: Literal["none", "median", "percentile", "halving", "hyperband", "asha"] = Field(
        default="median", description="the rule by which a trial is pruned"
    )
    startup_trials: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="finished trials of the same model before any is pruned; 5 by default (median, percentile)"
    )
    warmup_epochs: Annotated[int, Field(ge=0, le=10_000)] | None = Field(
        default=None, description="epochs before a trial can be pruned; 2 by default (median, percentile)"
    )
    min_trials: Count | None = Field(
        default=None, description="finished trials that must have reached the same share of their epochs; 1 by default (median, percentile)"
    )
    percentile: Annotated[float, Field(gt=0, lt=100)] | None = Field(
        default=None, description="share of the trials that is kept, in percent; 50 by default (percentile)"
    )
    min_epochs: Count | None = Field(default=None, description="epochs before the first cut; 1 by default (halving, hyperband)")
    reduction_factor: Annotated[int, Field(ge=2, le=100)] | None = Field(
        default=None, description="one of this many trials survives a cut; 3 by default (halving, hyperband), 2 (asha)"
    )
    rungs: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=10)] | None = Field(
        default=None,
        description="shares of a trial's epochs after which it is compared, rising; [0.04, 0.11, 0.33] by default (asha)",
    )

    audit: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="share of the trials to be stopped, drawn at random, that are trained to their end all the same, beyond the budget of "
        "epochs; 0 by default. The report then says how often the pruner was wrong",
    )

    KEYS: ClassVar[dict[str, dict[str, Any]]] = {
        "none": {},
        "median": {"startup_trials": 5, "warmup_epochs": 2, "min_trials": 1, "audit": 0.0},
        "percentile": {"startup_trials": 5, "warmup_epochs": 2, "min_trials": 1, "percentile": 50.0, "audit": 0.0},
        "halving": {"min_epochs": 1, "reduction_factor": 3, "audit": 0.0},
        "hyperband": {"min_epochs": 1, "reduction_factor": 3, "audit": 0.0},
        "asha": {"reduction_factor": 2, "rungs": [0.04, 0.11, 0.33], "audit": 0.0},
    }

    @field_validator("rungs")
    @classmethod
    def _check_rungs(cls, rungs: list[float] | None) -> list[float] | None:
        """Raise an error if the rungs do not rise."""
        if rungs is not None and any(after <= before for before, after in pairwise(rungs)):
            raise ValueError("must rise")
        return rungs


class Finalists(Section):
    """The best trials again, with fresh seeds."""

    top: Count = Field(default=3, description="number of best trials; the baseline is always added")
    seeds: Annotated[int, Field(ge=2, le=1_000)] = Field(
        default=8, description="most runs of each; half of them choose the winner, the other half measure it"
    )


class WarmStart(Section):
    """Other studies whose trials this one begins with."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    sources: list[str] = Field(alias="from", min_length=1, description="names of studies in the same storage")


def explain(error: ValidationError, contents: type[Section]) -> tuple[str, str]:
    """Return the first error of pydantic as a message that users understand.

    Args:
        error: the error of a file's content.
        contents: the model of the whole file.

    Returns:
        A message with key, rule and value, and a hint, which may be empty.
    """
    # Report an unknown key first. A misspelled key is unknown, and the correct key is then reported as missing.
    first = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    key = show(key) if len(key) > 100 else key
    kind, value = first["type"], first["input"]
    is_table = len(location) == 1 and (key in sections_of(contents) or key in ("space", "provenance"))
    if kind == "extra_forbidden":
        return f"unknown key {show(key)[1:-1]}", _place_of(location, contents)
    if kind == "missing":
        home = f"[{location[0]}]" if len(location) > 1 else "the file"
        return f"{key} is missing", f"Add a table [{key}]." if is_table else f"Add `{location[-1]}` to {home}."
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        return f"{key}: must be one of {', '.join(map(show, choices))}, but got {show(value)}", hint
    if kind == "value_error":
        rule = str(first["ctx"]["error"])
        # Do not show the value of a whole section, because the rule names the key.
        found = "" if isinstance(value, dict) else f", but got {show(value)}"
    else:
        rule = _RULES[kind].format(**first.get("ctx", {})) if kind in _RULES else re.sub("^(Input|Value|List) should", "must", first["msg"])
        found = f", but got {show(value)}"
    hint = f"Begin it with [{key}]." if is_table and kind != "list_type" else ""
    if kind == "list_type" and isinstance(value, str):
        hint = f"Write {key} = [{show(value)}]."
    elif kind == "list_type" and isinstance(value, dict):
        hint = f"Begin each with [[{key}]]."
    return f"{key}: {rule}{found}", hint


def sections_of(contents: type[Section]) -> dict[str, type[Section]]:
    """Return the sections of a file.

    Args:
        contents: the model of the whole file.

    Returns:
        The model of each section, by the name of the section.
    """
    return {
        name: kind
        for name, field in contents.model_fields.items()
        for kind in (field.annotation, *get_args(field.annotation))
        if isinstance(kind, type) and issubclass(kind, Section)
    }


def _place_of(location: list[str], contents: type[Section]) -> str:
    """Return a hint for an unknown key: a similar key, or the section to which the key belongs."""
    name, sections = location[-1], sections_of(contents)
    section = sections[location[0]] if len(location) > 1 else contents
    close = did_you_mean(name, [field.alias or key for key, field in section.model_fields.items()])
    if close.startswith("Did"):
        return close
    homes = [key for key, other in sections.items() if name in other.model_fields]
    if "space" in contents.model_fields and (
        name in SELECTORS or TRAINER.option(name) or name in BUILT_IN.names("model") + BUILT_IN.names("optimizer")
    ):
        homes = ["space"]
    return f"It belongs to [{homes[0]}]." if homes else close
