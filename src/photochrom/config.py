"""The settings of training: the one place of their defaults, limits and help texts.

A recipe is a TOML file with the same sections: [model], [diffusion], [data], [training] and a list of
[[stages]].
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from photochrom.errors import UsageError
from photochrom.files import printable

ENCODED: dict[str, dict[int, tuple[str, int]]] = {
    "none": {},
    "vgg16": {4: ("relu3_3", 256), 8: ("relu4_3", 512), 16: ("relu5_3", 512)},
    "vgg16x2": {4: ("relu4_3", 512), 8: ("relu5_3", 512)},
    "lite0": {8: ("stride8", 40), 16: ("stride16", 112), 32: ("stride32", 320)},
    "lite0x2": {4: ("stride8", 40), 8: ("stride16", 112), 16: ("stride32", 320)},
}
"""{encoder: {how many times smaller than the photo a map is: (layer, channels)}}."""
DEFAULT_MODEL = "photochrom-fast"
"""The model that colours by default. The package contains it; it was distilled from photochrom-v2."""
STEPS = 20
"""Default number of sampling steps, except for distilled models."""
MOST_GUIDANCE = 10
MAX_MEGAPIXELS = 120
"""Above the largest sensors of phones (108 megapixels), and far below a decompression bomb."""
SamplerName = Literal["ddim", "unipc", "dpm++", "ddpm"]
STRIDE = 5
"""Steps of the teacher that a distilled network does in one: its 2 steps replace 10.

With fewer, single colourings come nearer to the truth, but all together look less like true photos.
"""


class Preset(NamedTuple):
    """The size of a network, with a batch size and learning rate that suit it."""

    features: tuple[int, ...]
    batch_size: int
    learning_rate: float


PRESETS = {
    "default": Preset((64, 128, 256, 512), batch_size=16, learning_rate=1e-4),
    "small": Preset((32, 64, 128, 256), batch_size=32, learning_rate=8e-4),
}


class Section(BaseModel):
    """A section of settings: frozen, and strict, so that an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _can_be_printed(cls, value: Any) -> Any:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                printable(text)
        return value


class ModelConfig(Section):
    """The network."""

    features: tuple[int, ...] = Field(
        PRESETS["default"].features,
        min_length=1,
        max_length=10,
        description="channels of each level, from fine to coarse",
    )
    time_embedding: int = Field(256, ge=8, description="length of the time embedding (even)")
    blocks: int = Field(
        4, ge=1, le=16, description="residual blocks of the coarsest level; each finer level has half as many"
    )
    attention: int = Field(2, ge=0, description="number of coarsest levels with self-attention")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout inside the residual blocks")
    chroma_scale: Literal[1, 2, 4] = Field(2, description="how many times smaller chroma is than luma")
    encoder: Literal["none", "vgg16", "vgg16x2", "lite0", "lite0x2"] = Field(
        "none",
        description="pretrained network that recognises what the gray photo shows: VGG16, or "
        "EfficientNet-Lite0 (lite0), which costs a tenth; x2 shows it the photo at twice the size",
    )

    train_encoder: bool = Field(
        False,
        description="train the encoder (lite0, lite0x2) too, at a tenth of the learning rate; the model "
        "then contains it",
    )

    @field_validator("features")
    @classmethod
    def _features_divide(cls, features: tuple[int, ...]) -> tuple[int, ...]:
        bad = [f for f in features if f < 8 or f % 8]
        if bad:
            raise ValueError(f"{bad[0]} is not a positive multiple of 8: use for example 32,64,128,256")
        return features

    @field_validator("time_embedding")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd, but sines and cosines come in pairs: use {value + 1}")
        return value

    @model_validator(mode="after")
    def _encoder_has_a_place(self) -> ModelConfig:
        if self.train_encoder and not self.encoder.startswith("lite0"):
            raise ValueError(f"encoder = {self.encoder} cannot be trained: take lite0 or lite0x2")
        if self.encoder != "none" and not self.encoded:
            raise ValueError(
                f"encoder = {self.encoder} needs a level that is "
                f"{' or '.join(map(str, ENCODED[self.encoder]))} times smaller than the photo: give features "
                "more levels"
            )
        return self

    @property
    def encoded(self) -> dict[int, tuple[str, int]]:
        """The levels of the network that take a map of the encoder: {level: (layer, channels)}."""
        layers = ENCODED[self.encoder]
        sizes = {level: self.chroma_scale * 2**level for level in range(len(self.features))}
        return {level: layers[size] for level, size in sizes.items() if size in layers}

    def blocks_at(self, level: int) -> int:
        """The number of residual blocks of a level (0 is the finest). Coarse ones are cheap and get more."""
        return max(1, self.blocks // 2 ** (len(self.features) - 1 - level))

    @property
    def multiple(self) -> int:
        """The number of pixels of which a photo's height and width must be multiples."""
        return int(self.chroma_scale * 2 ** (len(self.features) - 1))


class DiffusionConfig(Section):
    """The noise schedule, and what the network predicts."""

    timesteps: int = Field(1000, ge=2, le=10_000, description="number of steps from the photo to noise")
    schedule: Literal["cosine", "linear"] = Field("cosine", description="how the noise grows with the step")
    prediction: Literal["v", "epsilon"] = Field("v", description="what the network predicts")
    zero_terminal_snr: bool = Field(
        True, description="end in pure noise (default: yes with v; impossible with epsilon)"
    )

    @model_validator(mode="before")
    @classmethod
    def _epsilon_needs_signal(cls, values: Any) -> Any:
        # At pure noise, epsilon tells nothing about x0, so sampling could not take its first step.
        if isinstance(values, dict) and values.get("prediction") == "epsilon":
            values = {"zero_terminal_snr": False, **values}
            if values["zero_terminal_snr"]:
                raise ValueError("zero_terminal_snr is impossible with prediction = epsilon: use v")
        return values


class DataConfig(Section):
    """The photos."""

    name: str = Field(
        "demo", description="data set: a name from `photochrom data list`, a folder, or the address of shards"
    )
    size: int | None = Field(
        None, ge=8, le=1024, description="side of its photos in pixels, read from the data set"
    )
    checksum: str | None = Field(None, description="checksum of its photos, read from the data set")
    sides: tuple[int, ...] = Field(
        (),
        description="sides in pixels at which the steps see the photos, in turn (default: the photos' own); "
        "with several, colours come out a little stronger",
    )
    flip: bool = Field(True, description="mirror half of the photos, at random")
    aged: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the photos whose luma is aged (film, blur, contrast, fading, grain, JPEG)",
    )
    keep_features: bool = Field(
        True,
        description="cache the encoder's maps beside the photos (for a photo of 64 pixels, 168 KB with "
        "vgg16x2, 111 with vgg16; twice that with --flip)",
    )
    photos_per_epoch: int | None = Field(
        None, ge=1, description="number of photos in an epoch (default: all training photos)"
    )
    validation_photos: int = Field(512, ge=1, description="number of photos for the validation loss")

    @property
    def smallest_side(self) -> int | None:
        """The smallest side at which the network has seen photos."""
        return min(self.sides, default=self.size)

    @property
    def title(self) -> str:
        """The data set's name without its folder or address."""
        return self.name.rstrip("/").rsplit("/", 1)[-1]


class TrainingConfig(Section):
    """Settings of training that hold in every stage."""

    batch_size: int = Field(
        PRESETS["default"].batch_size, ge=1, description="photos per step, over all processes together"
    )
    draws: int = Field(
        1,
        ge=1,
        description="noisy versions of each photo in a step; the encoder works once for all of them, which "
        "makes --train-encoder cheaper",
    )
    accumulate: int = Field(
        1, ge=1, description="parts into which a batch is split; more parts take less memory"
    )
    learning_rate: float = Field(
        PRESETS["default"].learning_rate, gt=0, le=1, description="peak learning rate of AdamW"
    )
    anneal: bool = Field(
        True,
        description="lower the learning rate to 0 over a stage; without it the rate stays constant, and "
        "the averaged weights are usable at any time",
    )
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW")
    warmup_steps: int = Field(200, ge=0, description="steps over which the learning rate rises")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, per step")
    encoder_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the photos that train without the encoder, which guidance needs",
    )
    guidance: float = Field(
        1.5,
        ge=1,
        le=MOST_GUIDANCE,
        description="how strongly the encoder steers the colours: default of `colorize`, and of the "
        "teacher in --distill; 1 is plain prediction",
    )
    patience: int = Field(
        0, ge=0, description="stop the last stage after this many epochs without improvement (0: never)"
    )
    sample_every: int = Field(5, ge=0, description="epochs between sheets of samples (0: only at the end)")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="number format; auto is bf16 if that is faster on this machine, else fp32"
    )
    seed: int = Field(0, ge=0, description="the same seed gives the same model")
    vgg_weights: str | None = Field(
        None, description="VGG16 weights: a safetensors file, or torchvision (default: those of the package)"
    )


class StageConfig(Section):
    """A number of epochs with one set of loss weights. V1 has only the noise loss; V2 adds the others.

    A loss with weight 0 is not built.
    """

    name: str | None = Field(
        None, description="name of this stage in the history (default: v1, v2 or distilled)"
    )
    epochs: int = Field(50, ge=1, description="number of passes over the photos")
    noise: float = Field(1.0, ge=0, description="weight of the noise loss")
    perceptual: float = Field(
        0.1, ge=0, description="weight of the perceptual loss on VGG16 features (V1: 0)"
    )
    perceptual_from: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="lowest step of the perceptual loss, as a share of all timesteps",
    )
    perceptual_share: float = Field(
        0.25, gt=0, le=1, description="largest share of a batch that the perceptual loss sees"
    )
    gan: bool = Field(False, description="add a discriminator that judges the colours")
    adversarial: float = Field(0.01, ge=0, description="weight of the adversarial loss, with --gan")
    gan_delay: int = Field(500, ge=0, description="steps in which only the discriminator learns")
    distill: int | None = Field(
        None,
        ge=1,
        le=100,
        description=f"distil: learn to colour in this many steps as well as before in {STRIDE} times "
        "as many; without other losses",
    )

    @model_validator(mode="before")
    @classmethod
    def _distilled_alone(cls, values: Any) -> Any:
        # A student learns the teacher's answers; losses on true photos would contradict them.
        if isinstance(values, dict) and values.get("distill") is not None:
            values = {"perceptual": 0.0, **values}
            for other in ("perceptual", "gan"):
                if values.get(other):
                    raise ValueError(f"distill excludes {other}: put that into a stage before it")
        return values

    @property
    def use_gan(self) -> bool:
        """Whether a discriminator takes part."""
        return self.gan and self.adversarial > 0

    @property
    def label(self) -> str:
        """The stage's name; by default distilled, v1 if it has only the noise loss, or v2."""
        if self.distill:
            return self.name or "distilled"
        return self.name or ("v2" if self.perceptual or self.use_gan else "v1")


class LearntFrom(Section):
    """A data set that a model was trained on."""

    name: str
    checksum: str | None = Field(None, description="checksum of its photos and their splits; None: unknown")


SECTIONS: dict[str, type[Section]] = {
    "model": ModelConfig,
    "diffusion": DiffusionConfig,
    "data": DataConfig,
    "training": TrainingConfig,
    "stages": StageConfig,
}


class Config(Section):
    """The configuration of a training, as saved in `config.json`."""

    source: str | None = Field(None, description="model that this one continues from")
    ancestors: tuple[LearntFrom, ...] = Field(
        (),
        description="data sets of earlier models that this one continues from; it may know their photos",
    )
    first_epoch: int = Field(
        0, ge=0, description="number of epochs of the model that this one continues from"
    )
    mean_of: tuple[str, ...] = Field(
        (), description="models whose mean weights these are; the last gave the rest"
    )
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    stages: tuple[StageConfig, ...] = Field((StageConfig(),), min_length=1)

    @model_validator(mode="after")
    def _schedule_has_the_steps(self) -> Config:
        most = self.diffusion.timesteps // STRIDE
        for stage in self.stages:
            if stage.distill and stage.distill > most:
                raise ValueError(
                    f"distill {stage.distill}: {self.diffusion.timesteps} timesteps allow at most {most}"
                )
        return self

    @property
    def steps(self) -> int:
        """The model's default number of sampling steps."""
        return self.steps_after(self.stages[-1])

    def steps_after(self, stage: StageConfig) -> int:
        """The default number of sampling steps after this stage."""
        return stage.distill or min(STEPS, self.diffusion.timesteps)

    @property
    def can_be_guided(self) -> bool:
        """Whether it also trained without the encoder. A student has its teacher's guidance built in."""
        return self.drops_encoder and not self.stages[-1].distill

    @property
    def drops_encoder(self) -> bool:
        """Whether stages other than distillation train on some photos without the encoder."""
        return bool(self.model.encoded) and self.training.encoder_dropout > 0

    @property
    def guidance(self) -> float:
        """The model's default guidance."""
        return self.guidance_after(self.stages[-1])

    def guidance_after(self, stage: StageConfig) -> float:
        """The default guidance after this stage."""
        return self.training.guidance if self.drops_encoder and not stage.distill else 1.0

    def taught_guidance(self, stage: StageConfig) -> float:
        """The guidance of this stage's teacher, which is the model before this stage."""
        number = next(number for number, each in enumerate(self.stages) if each is stage)
        if number:
            return self.guidance_after(self.stages[number - 1])
        return self.training.guidance if self.drops_encoder else 1.0  # see `refuse_teacher`

    def stage_at(self, epoch: int) -> tuple[StageConfig, int]:
        """The stage of a training after `epoch` epochs (or the last), and the epochs before that stage."""
        begin = self.first_epoch
        for stage in self.stages[:-1]:
            if epoch < begin + stage.epochs:
                return stage, begin
            begin += stage.epochs
        return self.stages[-1], begin

    @property
    def last_epoch(self) -> int:
        """The last epoch of the last stage."""
        return self.first_epoch + sum(stage.epochs for stage in self.stages)


def build(values: dict[str, Any]) -> Config:
    """Validate nested values. Raises UsageError with key, value and reason of the first wrong one."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise refusal(error, _keys_beside(error.errors()[0]["loc"])) from None


def refusal(error: ValidationError, known: Iterable[str]) -> UsageError:
    """One line with key, value and reason; for an unknown key, with the known keys."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return UsageError(f"unknown key {key!r}; known here: {', '.join(sorted(known))}")
    reason = first["msg"].removeprefix("Value error, ")
    return UsageError(f"{key} = {first['input']!r}: {reason}" if key else reason)


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    inside: dict[str, type[Section]] = {**SECTIONS, "ancestors": LearntFrom}
    return list((inside.get(str(loc[0]), Config) if len(loc) > 1 else Config).model_fields)


def read_recipe(path: Path) -> dict[str, Any]:
    """Read the values of a TOML recipe without validating them. Raises UsageError if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"no recipe {path}: give the path of a TOML file, for example recipes/v1.toml"
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, not TOML, nested too deeply
        raise UsageError(f"recipe {path} cannot be read: {error}") from None
