"""How photos are coloured: every option once. Command line, API, films, albums and evaluation are made from it.

This module imports nothing heavy, so that help answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from annotated_types import Le, Lt
from pydantic import Field, ValidationError, create_model, field_validator, model_validator

from photochrom.config import MAX_MEGAPIXELS, MOST_GUIDANCE, Config, SamplerName, Section, refusal
from photochrom.errors import UsageError

if TYPE_CHECKING:
    from photochrom.coloring.photo import Photo
else:
    Photo = Any  # the real type needs Pillow and NumPy; `open_gray` says what it takes

GUESSES = 8
"""Colourings that a map of uncertainty compares where nobody gives a number."""

EVALUATED = ("steps", "seed", "sampler", "guidance", "average")
"""Options that an evaluation on a data set follows."""

EVALUATED_WHOLE = (*EVALUATED, "strength", "temperature", "detail", "like")
"""Options that an evaluation on photos of any size follows."""


class Hint(NamedTuple):
    """The pixel at (x, y) of the upright photo, counted from its upper left corner, has about this colour.

    rgb: 0 to 255 each. Only its chroma counts, since the photo keeps its own luma.
    """

    x: int
    y: int
    rgb: tuple[int, int, int]

    @classmethod
    def parse(cls, text: str) -> Hint:
        """Read a hint as people type it: x,y,#rrggbb. Raises UsageError for anything else."""
        found = re.fullmatch(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*#?([0-9a-fA-F]{6})\s*", text)
        if not found:
            raise UsageError(
                f"hint {text[:60]!r}: write x,y,#rrggbb such as 120,80,#c03020, or name a picture"
            )
        red, green, blue = bytes.fromhex(found[3])
        return cls(int(found[1]), int(found[2]), (red, green, blue))


class PlainOptions(Section):
    """The options that are numbers and words: what a stranger may send as well."""

    steps: int | None = Field(
        None,
        ge=1,
        description="sampling steps (default: 20, or what the model was distilled for)",
        examples=[20],
    )
    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="another seed gives other plausible colours", examples=[7]
    )
    sampler: SamplerName = Field(
        "ddim", description="way from noise to colours; unipc gets as far in 8 steps as ddim in 20"
    )
    guidance: float | None = Field(
        None,
        ge=1,
        le=MOST_GUIDANCE,
        description="how far the encoder leads colours: 1 is plain, in half the time; more is surer and bolder "
        "(default: as the model says)",
    )
    strength: float = Field(
        1.0,
        ge=0,
        le=5,
        description="what colours are multiplied by: 0 is gray, above 1 is bolder; hints keep theirs",
    )
    temperature: float = Field(
        1.0,
        ge=0,
        le=2,
        description="what the first noise is multiplied by: below 1, colours are nearer to the average; not for ddpm",
    )
    detail: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="shorter side in pixels at which the model sees a photo (default: as trained; with an encoder twice that)",
    )
    samples: int = Field(
        1, ge=1, le=64, description="give this many different colourings, those of seed, seed + 1 and so on"
    )
    average: int = Field(
        1,
        ge=1,
        le=64,
        description="give what this many colourings agree on: calmer, gray where they do not; 4 is good",
    )
    uncertainty: bool = Field(
        False, description="also draw where colourings disagree: white where the colour is a guess"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.samples > 1 and self.average > 1:
            raise ValueError("samples and average together: take one (N pictures, or what N agree on)")
        if self.temperature != 1 and self.sampler == "ddpm":
            raise ValueError(
                "temperature scales the first noise, and ddpm draws more in each step: use ddim or dpm++"
            )
        return self

    @property
    def draws(self) -> int:
        """How many colourings of each photo have to be drawn."""
        count = max(self.samples, self.average)
        return GUESSES if self.uncertainty and count == 1 else count


class Options(PlainOptions):
    """How photos are coloured, with pictures that say more, and how their files are read.

    A picture is a path, a Pillow image, or an array (H,W), (H,W,3) or (H,W,4).
    """

    hints: Sequence[Hint] | Photo | None = Field(
        None,
        description="transparent picture with strokes of colour, for one photo; in Python also a list of Hint",
    )
    keep_gray: Photo | None = Field(
        None, description="picture, white where the photo stays gray; for one photo"
    )
    like: Photo | None = Field(
        None, description="colour photo whose colours the result takes on, brightness by brightness"
    )
    max_megapixels: float = Field(
        float(MAX_MEGAPIXELS), gt=0, le=1e6, description="refuse larger photos before they are decoded"
    )
    truncated: bool = Field(False, description="colour what there is of a photo whose file was cut short")

    @field_validator("hints", mode="before")
    @classmethod
    def _read_typed_hints(cls, hints: Any) -> Any:
        if not isinstance(hints, list | tuple):
            return hints
        return tuple(Hint.parse(hint) if isinstance(hint, str) else hint for hint in hints)

    def but(self, **changes: Any) -> Options:
        """The same with changes; raises UsageError, in one line, for an unknown option or a value out of its range."""
        try:
            return Options(**{name: getattr(self, name) for name in self.model_fields_set} | changes)
        except ValidationError as error:
            raise refusal(error, Options.model_fields) from None

    def without(self, *names: str) -> Options:
        """The same with these options as they are by default."""
        kept = self.model_fields_set - set(names)
        return Options(**{name: getattr(self, name) for name in kept})

    def check_count(self, photos: int) -> None:
        """Raise UsageError where options mean places in one photo, and there are more."""
        if photos > 1 and (self.hints is not None or self.keep_gray is not None):
            raise UsageError("hints and keep_gray are places in one photo: colour the others separately")

    def steps_for(self, config: Config) -> int:
        """Sampling steps for a model: its own number where nobody gives one."""
        return config.steps if self.steps is None else self.steps

    def guidance_for(self, config: Config) -> float:
        """Guidance for a model: its own where nobody gives one; raises UsageError where it cannot be guided."""
        guidance = config.guidance if self.guidance is None else self.guidance
        if guidance != 1 and not config.can_be_guided:
            distilled = config.stages[-1].distill
            why = "distilled" if distilled else "trained without an encoder, or without its dropout"
            raise UsageError(f"guidance {guidance:g}: this model was {why}, leave guidance out")
        return guidance


Model = TypeVar("Model", bound=PlainOptions)


def at_most(**limits: float) -> Callable[[type[Model]], type[Model]]:
    """Class decorator: the same options with lower limits, for those who work for strangers."""

    def narrow(model: type[Model]) -> type[Model]:
        fields: dict[str, Any] = {}
        for name, limit in limits.items():
            field = copy(model.model_fields[name])
            field.metadata = [each for each in field.metadata if not isinstance(each, Le | Lt)] + [Le(limit)]
            fields[name] = (field.annotation, field)
        return create_model(
            model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **fields
        )

    return narrow


def chosen(options: Options | None, changes: Mapping[str, Any]) -> Options:
    """What a caller asks for: an object, keyword arguments, or both."""
    options = options or Options()
    return options.but(**changes) if changes else options
