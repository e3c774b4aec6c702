"""The options of colouring, each once. The command line, the API and evaluation take theirs from here.

This module imports nothing heavy, so `--help` answers at once.
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
    Photo = Any  # the real type needs Pillow and NumPy, which are slow to import

ENOUGH = 224
"""Most pixels of the shorter side that a model sees by default; more cost time and help no model we know."""
CALM = 4
"""How many colourings `photochrom colorize` merges by default: a photo keeps what they agree on."""
GUESSES = 8
"""How many colourings an uncertainty map compares by default."""

EVALUATED = ("steps", "seed", "sampler", "guidance", "average")
"""The options that an evaluation on a data set uses."""

EVALUATED_WHOLE = (*EVALUATED, "strength", "temperature", "detail", "like")
"""The options that an evaluation on photos of any size uses."""


class Hint(NamedTuple):
    """A user's colour for one pixel of the upright photo.

    x, y: the pixel, counted from 0 at the upper left corner. rgb: 0 to 255 each; the photo keeps its luma, so
    only the chroma of this colour counts.
    """

    x: int
    y: int
    rgb: tuple[int, int, int]

    @classmethod
    def parse(cls, text: str) -> Hint:
        """Read a hint written as x,y,#rrggbb. Raises UsageError for any other text."""
        found = re.fullmatch(r"\s*(\d{1,9})\s*,\s*(\d{1,9})\s*,\s*#?([0-9a-fA-F]{6})\s*", text)
        if not found:
            raise UsageError(
                f"hint {text[:60]!r}: write x,y,#rrggbb, such as 120,80,#c03020, or name a picture"
            )
        red, green, blue = bytes.fromhex(found[3])
        return cls(int(found[1]), int(found[2]), (red, green, blue))


class PlainOptions(Section):
    """The options that are numbers or words. A server accepts these from strangers."""

    steps: int | None = Field(
        None,
        ge=1,
        description="number of sampling steps (default: 20, or the number that the model was distilled for)",
        examples=[20],
    )
    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="each seed gives other plausible colours", examples=[7]
    )
    sampler: SamplerName = Field(
        "ddim",
        description="algorithm that turns noise into colours; unipc needs 8 steps where ddim needs 20",
    )
    guidance: float | None = Field(
        None,
        ge=1,
        le=MOST_GUIDANCE,
        description="how strongly the encoder steers the colours: above 1, they are surer and bolder; "
        "1 takes half the time (default: the model's own value)",
    )
    strength: float = Field(
        1.0,
        ge=0,
        le=5,
        description="factor on the colours: 0 gives gray, above 1 bolder colours; hints keep their colour",
    )
    temperature: float = Field(
        1.0,
        ge=0,
        le=2,
        description="factor on the initial noise: below 1, colours come nearer to the average; not for ddpm",
    )
    detail: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="shorter side, in pixels, at which the model sees the photo "
        f"(default: as in training; with an encoder twice that, up to {ENOUGH})",
    )
    samples: int = Field(
        1, ge=1, le=64, description="give this many different colourings, from seed, seed + 1 and so on"
    )
    average: int = Field(
        1,
        ge=1,
        le=64,
        description="merge this many colourings: calmer colours, gray where they disagree; 4 works well",
    )
    uncertainty: bool = Field(
        False, description="also write a map of where colourings disagree: white where the colour is a guess"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.samples > 1 and self.average > 1:
            raise ValueError(
                "samples and average exclude each other: samples gives N pictures, average merges N into one"
            )
        if self.temperature != 1 and self.sampler == "ddpm":
            raise ValueError(
                "temperature scales the initial noise, but ddpm draws more in each step: use ddim or dpm++"
            )
        return self

    @property
    def draws(self) -> int:
        """How many colourings of each photo the model must draw."""
        count = max(self.samples, self.average)
        return GUESSES if self.uncertainty and count == 1 else count


class Options(PlainOptions):
    """All options of colouring: numbers and words, guiding pictures, and how files are read.

    A picture is a path, a Pillow image, or an array (H,W), (H,W,3) or (H,W,4).
    """

    hints: Sequence[Hint] | Photo | None = Field(
        None,
        description="transparent picture with strokes of colour, for one photo; or in Python a list of Hint",
    )
    keep_gray: Photo | None = Field(
        None, description="picture that is white where the photo stays gray, for one photo"
    )
    like: Photo | None = Field(
        None, description="colour photo whose palette the result takes on, separately for each brightness"
    )
    max_megapixels: float = Field(
        float(MAX_MEGAPIXELS), gt=0, le=1e6, description="refuse larger photos before decoding them"
    )
    truncated: bool = Field(False, description="accept a file that was cut short, and colour what is left")

    @field_validator("hints", mode="before")
    @classmethod
    def _read_typed_hints(cls, hints: Any) -> Any:
        if not isinstance(hints, list | tuple):
            return hints
        return tuple(Hint.parse(hint) if isinstance(hint, str) else hint for hint in hints)

    def but(self, **changes: Any) -> Options:
        """Return a copy with changes. Raises UsageError for an unknown option or a value out of its range."""
        try:
            return Options(**{name: getattr(self, name) for name in self.model_fields_set} | changes)
        except ValidationError as error:
            raise refusal(error, Options.model_fields) from None

    def without(self, *names: str) -> Options:
        """Return a copy with these options at their defaults."""
        kept = self.model_fields_set - set(names)
        return Options(**{name: getattr(self, name) for name in kept})

    def check_count(self, photos: int) -> None:
        """Raise UsageError if there are several photos and an option refers to places in one."""
        if photos > 1 and (self.hints is not None or self.keep_gray is not None):
            raise UsageError("hints and keep_gray refer to places in one photo: colour the others separately")

    def steps_for(self, config: Config) -> int:
        """Sampling steps for a model: this option, or else the model's own number."""
        return config.steps if self.steps is None else self.steps

    def guidance_for(self, config: Config) -> float:
        """Guidance for a model: this option, or else its own. Raises UsageError if it supports none."""
        guidance = config.guidance if self.guidance is None else self.guidance
        if guidance != 1 and not config.can_be_guided:
            distilled = config.stages[-1].distill
            why = "distilled" if distilled else "trained without an encoder or without encoder dropout"
            raise UsageError(f"guidance {guidance:g}: this model was {why}; leave guidance out")
        return guidance


Model = TypeVar("Model", bound=PlainOptions)


def at_most(**limits: float) -> Callable[[type[Model]], type[Model]]:
    """Class decorator that lowers the upper limits of options, for a server that works for strangers."""

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
    """Combine a caller's options object with its keyword arguments; both may be absent."""
    options = options or Options()
    return options.but(**changes) if changes else options
