"""What a training can be told: one source of defaults, limits and help texts.

A recipe is a TOML file with the same sections: [model], [diffusion], [data], [training] and a list of [[stages]].
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from photochrom.errors import UsageError

ENCODED: dict[str, dict[int, tuple[str, int]]] = {
    "none": {},
    "vgg16": {4: ("relu3_3", 256), 8: ("relu4_3", 512), 16: ("relu5_3", 512)},
    "vgg16x2": {4: ("relu4_3", 512), 8: ("relu5_3", 512)},
    "lite0": {8: ("stride8", 40), 16: ("stride16", 112), 32: ("stride32", 320)},
    "lite0x2": {4: ("stride8", 40), 8: ("stride16", 112), 16: ("stride32", 320)},
}
"""Layers of each encoder that can come in, and their channels, by how much smaller their maps are than the photo."""
DEFAULT_MODEL = "photochrom-fast"
"""The model that colours where nobody names one; it comes along with the package, and is distilled from photochrom-v2."""
STEPS = 20
"""Network evaluations that a colouring takes, if its model was not taught to do with fewer."""
MOST_GUIDANCE = 10
MAX_MEGAPIXELS = 120
"""Above the largest sensors of phones (108 megapixels), far below a decompression bomb."""
SamplerName = Literal["ddim", "unipc", "dpm++", "ddpm"]
STRIDE = 5
"""Steps of the teacher that a distilled network takes at once: with 4, it does what took 20."""


class Preset(NamedTuple):
    """A network, and how to train it."""

    features: tuple[int, ...]
    batch_size: int
    learning_rate: float


PRESETS = {
    "default": Preset((64, 128, 256, 512), batch_size=16, learning_rate=1e-4),
    "small": Preset((32, 64, 128, 256), batch_size=32, learning_rate=8e-4),
}


class Section(BaseModel):
    """Frozen and strict: an unknown key is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(Section):
    """The network."""

    features: tuple[int, ...] = Field(
        PRESETS["default"].features,
        min_length=1,
        max_length=10,
        description="channels of each level, fine to coarse",
    )
    time_embedding: int = Field(256, ge=8, description="length of the time embedding (even)")
    blocks: int = Field(
        4, ge=1, le=16, description="residual blocks of the coarsest level; each finer one has half as many"
    )
    attention: int = Field(2, ge=0, description="how many of the coarsest levels have self-attention")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout inside the residual blocks")
    chroma_scale: Literal[1, 2, 4] = Field(2, description="how much smaller chroma is than luma")
    encoder: Literal["none", "vgg16", "vgg16x2", "lite0", "lite0x2"] = Field(
        "none",
        description="network that tells what the gray photo shows: VGG16, or EfficientNet-Lite0, which costs a tenth; x2 shows "
        "it the photo at twice the size",
    )

    train_encoder: bool = Field(
        False,
        description="let the encoder (lite0, lite0x2) learn along, at a tenth of the learning rate; the model then has its own",
    )

    @field_validator("features")
    @classmethod
    def _features_divide(cls, features: tuple[int, ...]) -> tuple[int, ...]:
        bad = [f for f in features if f < 8 or f % 8]
        if bad:
            raise ValueError(f"{bad[0]} is not a positive multiple of 8; use for example 32,64,128,256")
        return features

    @field_validator("time_embedding")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd; sines and cosines come in pairs, use {value + 1}")
        return value

    @model_validator(mode="after")
    def _encoder_has_a_place(self) -> ModelConfig:
        if self.train_encoder and not self.encoder.startswith("lite0"):
            raise ValueError(f"encoder = {self.encoder} cannot learn along: take lite0 or lite0x2")
        if self.encoder != "none" and not self.encoded:
            raise ValueError(
                f"encoder = {self.encoder} needs maps that are {' or '.join(map(str, ENCODED[self.encoder]))} times smaller "
                "than the photo: take more features"
            )
        return self

    @property
    def encoded(self) -> dict[int, tuple[str, int]]:
        """Levels of the network at which the encoder's features come in: its layer, and that layer's channels."""
        layers = ENCODED[self.encoder]
        sizes = {level: self.chroma_scale * 2**level for level in range(len(self.features))}
        return {level: layers[size] for level, size in sizes.items() if size in layers}

    def blocks_at(self, level: int) -> int:
        """Residual blocks of a level, 0 being the finest: meaning is cheap where the map is small."""
        return max(1, self.blocks // 2 ** (len(self.features) - 1 - level))

    @property
    def multiple(self) -> int:
        """Height and width of a photo must be multiples of this many pixels."""
        return int(self.chroma_scale * 2 ** (len(self.features) - 1))


class DiffusionConfig(Section):
    """The noise: how much at which step, and what the network predicts."""

    timesteps: int = Field(1000, ge=2, le=10_000, description="steps from the photo to noise")
    schedule: Literal["cosine", "linear"] = Field("cosine", description="how noise grows with the step")
    prediction: Literal["v", "epsilon"] = Field("v", description="what the network predicts")
    zero_terminal_snr: bool = Field(
        True, description="end in pure noise (default: yes with v; impossible with epsilon)"
    )

    @model_validator(mode="before")
    @classmethod
    def _epsilon_needs_signal(cls, values: Any) -> Any:
        # At pure noise, epsilon says nothing about x0: sampling could not take its first step.
        if isinstance(values, dict) and values.get("prediction") == "epsilon":
            values = {"zero_terminal_snr": False, **values}
            if values["zero_terminal_snr"]:
                raise ValueError("zero_terminal_snr cannot be had with prediction = epsilon; use v")
        return values


class DataConfig(Section):
    """The photos."""

    name: str = Field(
        "demo", description="data set: a name from `photochrom data list`, a folder, or an address of shards"
    )
    size: int | None = Field(
        None, ge=8, le=1024, description="side of its photos in pixels (read from the data set)"
    )
    checksum: str | None = Field(None, description="checksum of its photos (read from the data set)")
    flip: bool = Field(True, description="mirror every other photo at random")
    aged: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the photos whose luma is aged (film, blur, contrast, fading, grain, JPEG)",
    )
    keep_features: bool = Field(
        True,
        description="keep what the encoder sees beside the photos (168 KB for each of 64 pixels with vgg16x2, 111 with vgg16, "
        "twice that with --flip)",
    )
    photos_per_epoch: int | None = Field(
        None, ge=1, description="photos that make an epoch (default: the whole training part)"
    )
    validation_photos: int = Field(512, ge=1, description="validation photos that the loss is taken over")

    @property
    def title(self) -> str:
        """The data set's name without the place where it is."""
        return self.name.rstrip("/").rsplit("/", 1)[-1]


class TrainingConfig(Section):
    """How the network is trained, in every stage."""

    batch_size: int = Field(
        PRESETS["default"].batch_size, ge=1, description="photos per step, of all processes together"
    )
    accumulate: int = Field(
        1, ge=1, description="parts in which a batch goes through the network; more take less memory"
    )
    learning_rate: float = Field(
        PRESETS["default"].learning_rate, gt=0, le=1, description="peak learning rate of AdamW"
    )
    anneal: bool = Field(
        True,
        description="let the learning rate fall to 0 over a stage; without, it stays where it is, and the averaged weights are "
        "good at any time",
    )
    weight_decay: float = Field(0.01, ge=0, description="weight decay of AdamW")
    warmup_steps: int = Field(200, ge=0, description="steps over which the learning rate rises")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, per step")
    encoder_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the photos that is learnt from without the encoder, so that it can guide colouring",
    )
    guidance: float = Field(
        1.5,
        ge=1,
        le=MOST_GUIDANCE,
        description="how far the encoder leads colours from what they would be without it, where colorize is told nothing else, "
        "and in what --distill teaches; 1: not beyond what it says",
    )
    patience: int = Field(
        0, ge=0, description="in the last stage, stop after this many epochs without improvement (0: never)"
    )
    sample_every: int = Field(5, ge=0, description="epochs between sheets of samples (0: only at the end)")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="arithmetic; auto is bf16 where this machine is faster with it, otherwise fp32"
    )
    seed: int = Field(0, ge=0, description="the same seed gives the same model")
    vgg_weights: str | None = Field(
        None, description="VGG16 weights: a safetensors file, or torchvision (default: those that come along)"
    )


class StageConfig(Section):
    """A run of epochs with one set of loss weights: V1 is the noise loss alone, V2 adds the others.

    A weight of 0 means that the part is not even constructed.
    """

    name: str | None = Field(
        None, description="what the history calls this stage (default: v1, v2 or distilled)"
    )
    epochs: int = Field(50, ge=1, description="how often the photos are gone through")
    noise: float = Field(1.0, ge=0, description="weight of the noise loss")
    perceptual: float = Field(
        0.1, ge=0, description="weight of the perceptual loss on VGG16 features (V1: 0)"
    )
    perceptual_from: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="noise level from which colours are compared, as a share of the time steps",
    )
    perceptual_share: float = Field(
        0.25, gt=0, le=1, description="largest share of a batch whose colours are compared"
    )
    gan: bool = Field(False, description="let a discriminator judge the colours as well")
    adversarial: float = Field(0.01, ge=0, description="weight of the adversarial loss, with --gan")
    gan_delay: int = Field(500, ge=0, description="steps in which the discriminator learns alone")
    distill: int | None = Field(
        None,
        ge=1,
        le=100,
        description=f"learn to colour in this many steps as it does before this stage in {STRIDE} times as many; alone",
    )

    @model_validator(mode="before")
    @classmethod
    def _distilled_alone(cls, values: Any) -> Any:
        # The network is told what it said itself; true photos would tell it otherwise.
        if isinstance(values, dict) and values.get("distill") is not None:
            values = {"perceptual": 0.0, **values}
            for other in ("perceptual", "gan"):
                if values.get(other):
                    raise ValueError(f"distill goes without {other}: make that a stage before it")
        return values

    @property
    def use_gan(self) -> bool:
        """Whether a discriminator takes part."""
        return self.gan and self.adversarial > 0

    @property
    def label(self) -> str:
        """The stage's name; v1 if it has the noise loss alone, distilled or v2 otherwise."""
        if self.distill:
            return self.name or "distilled"
        return self.name or ("v2" if self.perceptual or self.use_gan else "v1")


class LearntFrom(Section):
    """A data set whose training photos a model has learnt from."""

    name: str
    checksum: str | None = Field(None, description="of its photos and their split; None: not known")


SECTIONS: dict[str, type[Section]] = {
    "model": ModelConfig,
    "diffusion": DiffusionConfig,
    "data": DataConfig,
    "training": TrainingConfig,
    "stages": StageConfig,
}


class Config(Section):
    """A whole training, as saved in `config.json`."""

    source: str | None = Field(None, description="model that this one goes on from")
    ancestors: tuple[LearntFrom, ...] = Field(
        (),
        description="data sets that the models before this one learnt from, since it may know their photos",
    )
    first_epoch: int = Field(0, ge=0, description="how many epochs that model had")
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
                    f"distill {stage.distill}: {self.diffusion.timesteps} timesteps allow {most} at most"
                )
        return self

    @property
    def steps(self) -> int:
        """Network evaluations that a colouring takes where nothing else is said."""
        return self.steps_after(self.stages[-1])

    def steps_after(self, stage: StageConfig) -> int:
        """The same for what this stage has made."""
        return stage.distill or min(STEPS, self.diffusion.timesteps)

    @property
    def can_be_guided(self) -> bool:
        """Whether the network knows what to say without its encoder; a student knows what it was taught alone."""
        return self.drops_encoder and not self.stages[-1].distill

    @property
    def drops_encoder(self) -> bool:
        """Whether stages that do not distil learn from some photos without the encoder."""
        return bool(self.model.encoded) and self.training.encoder_dropout > 0

    @property
    def guidance(self) -> float:
        """How far the encoder leads a colouring where nothing else is said."""
        return self.guidance_after(self.stages[-1])

    def guidance_after(self, stage: StageConfig) -> float:
        """The same for what this stage has made."""
        return self.training.guidance if self.drops_encoder and not stage.distill else 1.0

    def taught_guidance(self, stage: StageConfig) -> float:
        """How far the encoder leads the teacher of this stage, which is what the stage before it has made."""
        number = next(number for number, each in enumerate(self.stages) if each is stage)
        if number:
            return self.guidance_after(self.stages[number - 1])
        return self.training.guidance if self.drops_encoder else 1.0  # see `refuse_teacher`

    def stage_at(self, epoch: int) -> tuple[StageConfig, int]:
        """The stage in which a training is after so many epochs (the last one, if all are done), and those before it."""
        begin = self.first_epoch
        for stage in self.stages[:-1]:
            if epoch < begin + stage.epochs:
                return stage, begin
            begin += stage.epochs
        return self.stages[-1], begin

    @property
    def last_epoch(self) -> int:
        """The epoch after which the last stage is done."""
        return self.first_epoch + sum(stage.epochs for stage in self.stages)


def build(values: dict[str, Any]) -> Config:
    """Validate nested values; a wrong one raises UsageError with key, value and reason in one line."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise refusal(error, _keys_beside(error.errors()[0]["loc"])) from None


def refusal(error: ValidationError, known: Iterable[str]) -> UsageError:
    """One line that names key, value and reason; for an unknown key, those that are known in its place."""
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
    """The values of a TOML recipe, not validated yet (flags are laid over them first)."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"no recipe {path}; give the path of a TOML file, for example recipes/v1.toml"
        ) from None
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, not TOML, nested too deep
        raise UsageError(f"recipe {path} cannot be read: {error}") from None
