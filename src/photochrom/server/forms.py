"""The forms that the API accepts."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, get_origin

from fastapi import Request, UploadFile
from pydantic import BaseModel, Field, WithJsonSchema

from photochrom.config import DEFAULT_MODEL
from photochrom.server.photos import Choices
from photochrom.server.problems import Problem

MAX_MODELS = 2
# Generators of clients do not understand FastAPI's own description of a file.
Upload = Annotated[UploadFile, WithJsonSchema({"type": "string", "format": "binary"})]


class GuidedForm(Choices):
    """How to colour, with other pictures that guide it."""

    like: Upload | None = Field(None, description="A colour photo, whose colours to imitate.")
    keep_gray: Upload | None = Field(
        None, description="A mask of the photo's shape, white where it stays gray; for one photo only."
    )

    def choices(self) -> Choices:
        """The options without the pictures."""
        return Choices(**{name: getattr(self, name) for name in Choices.model_fields})


class ColorizeForm(GuidedForm):
    """One photo, and how to colour it."""

    photo: Upload = Field(
        description="JPEG, PNG, WebP, TIFF, BMP, GIF, JPEG 2000 or AVIF; only its brightness counts."
    )
    model: str | None = Field(
        None,
        description=f"A model's name (default: {DEFAULT_MODEL}, which comes with Photochrom).",
        examples=["model_v1"],
    )
    format: Literal["png", "jpeg", "json"] = Field(
        "png", description="json: measures, timings and pictures (PNG in base64)."
    )


class JobForm(GuidedForm):
    """Several photos by one or two models."""

    photo: list[Upload] = Field(min_length=1, description="Repeat the field for several photos.")
    model: list[str] = Field(
        min_length=1,
        max_length=MAX_MODELS,
        description="One name, or two to compare.",
        examples=[["model_v1"]],
    )


async def refuse_repeated(request: Request, form: BaseModel) -> None:
    """Raise a Problem if the request repeats a field that takes one value.

    FastAPI would drop all but the last.
    """
    for name, count in Counter(name for name, _ in (await request.form()).multi_items()).items():
        if count > 1 and get_origin(type(form).model_fields[name].annotation) not in (list, tuple):
            raise Problem(
                422, f"{name} was sent {count} times: send one (several photos make a job: /api/jobs)"
            )
