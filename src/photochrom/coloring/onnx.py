"""The network as an ONNX file: written by torch, run by onnxruntime.

The file holds one evaluation of the U-Net, and the model's configuration. Sampling stays with us, and so does the encoder,
whose weights come with the package and which looks at a photo once, not in every step.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from photochrom import files, model_folder
from photochrom.config import Config, ModelConfig
from photochrom.diffusion.unet import CHROMA_CHANNELS, UNet
from photochrom.errors import PhotochromError

OPSET = 20  # of 2023: all that the network needs, and old enough for most programs that read ONNX
TOLERANCE = 1e-3  # between what torch and onnxruntime make of the same numbers, which are about 1
WEIGHTS_KEY = "weights_sha256"  # of the model.safetensors that the file was made from


class OnnxNetwork(nn.Module):
    """The network as onnxruntime runs it on the processor; takes and gives what `UNet` does, in float32."""

    def __init__(self, config: ModelConfig, session: Any) -> None:
        super().__init__()
        self.config = config
        self.session = session
        self.encoder = None  # see `write_onnx`

    def forward(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """See `UNet.forward`; t is (1,), a step for all photos."""
        values = [xt.float(), t, y.float(), *(each.float() for each in features)]
        feed = {name: value.numpy() for name, value in zip(inputs(self.config), values, strict=True)}
        return torch.from_numpy(self.session.run(None, feed)[0])


class Difference(NamedTuple):
    """How far onnxruntime was from torch, at most, on photos of random numbers."""

    photos: int
    height: int
    width: int
    largest: float


def inputs(config: ModelConfig) -> list[str]:
    """The names of what the network is given: xt, t, y, and a map of the encoder for each level that takes one."""
    return ["xt", "t", "y", *(layer for layer, _ in config.encoded.values())]


def write_onnx(weights: Path, output: Path) -> list[Difference]:
    """Write the network of a `model.safetensors` as an ONNX file, after comparing it with torch at two shapes.

    Batch, height and width are free, the latter in multiples of `config.multiple`. Raises PhotochromError where onnxruntime
    makes something else of it than torch.
    """
    for library in ("onnx", "onnxruntime", "onnxscript"):
        _imported(library)
    config, tensors = model_folder.read_weights(weights)
    if config.model.train_encoder:
        raise PhotochromError(
            f"{weights} has an encoder of its own, which an ONNX file has no place for: colour with {weights.name}"
        )
    network = UNet.load(config.model, tensors, weights)
    program = _captured(network)
    checksum = hashlib.sha256(weights.read_bytes()).hexdigest()
    program.model.metadata_props.update(model_folder.metadata_for(config) | {WEIGHTS_KEY: checksum})
    content = program.model_proto.SerializeToString()
    found = compared(network, content)
    files.write_bytes(output, content)
    return found


def compared(network: UNet, content: bytes) -> list[Difference]:
    """The network beside an ONNX file of it, at two shapes; raises PhotochromError where they differ by too much."""
    side = network.config.multiple
    ported = OnnxNetwork(network.config, _session(content))
    found = []
    for shape in ((1, 4 * side, 4 * side), (3, 2 * side, 5 * side)):
        example = _example(network.config, *shape)
        largest = float((network(*example) - ported(*example)).abs().max())
        if not largest <= TOLERANCE:
            raise PhotochromError(
                f"onnxruntime differs from torch by {largest:.2g} at {shape[1]}x{shape[2]}, where {TOLERANCE:g} is allowed: "
                f"nothing was written; try other versions of onnxruntime and torch"
            )
        found.append(Difference(*shape, largest))
    return found


def read_onnx(path: Path) -> tuple[Config, OnnxNetwork]:
    """Configuration and network from what `write_onnx` has written.

    Raises PhotochromError for a file that is missing, torn, of another program, or of other weights than the
    `model.safetensors` of the folder where it is the `model.onnx`.
    """
    _imported("onnxruntime")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PhotochromError(f"no {path}; write it with photochrom export MODEL -o {path}") from None
    try:
        session = _session(content)
    except Exception as error:  # onnxruntime's own types have no common base
        raise PhotochromError(f"{path} is torn, or not an ONNX file; export it again") from error
    metadata = session.get_modelmeta().custom_metadata_map
    config = model_folder.carried_config(metadata, path)
    names = [each.name for each in session.get_inputs()]
    if names != inputs(config.model):
        raise PhotochromError(
            f"{path} takes {', '.join(names)}: it belongs to another network than its configuration says"
        )
    _refuse_other_weights(path, metadata)
    return config, OnnxNetwork(config.model, session)


def _refuse_other_weights(path: Path, metadata: Mapping[str, str]) -> None:
    """Raise PhotochromError if the model was trained on since its `model.onnx` was written."""
    weights = path.with_name(model_folder.WEIGHTS)
    if path.name != model_folder.ONNX or not weights.exists():
        return
    if hashlib.sha256(weights.read_bytes()).hexdigest() != metadata.get(WEIGHTS_KEY):
        raise PhotochromError(
            f"{path} is of other weights than {weights}: photochrom export {path.parent} --overwrite writes it again"
        )


def _imported(library: str) -> Any:
    try:
        return import_module(library)
    except ImportError:
        raise PhotochromError(
            f"ONNX files need {library}, which is not installed: pip install 'photochrom[onnx]'"
        ) from None


def _session(content: bytes) -> Any:
    """onnxruntime with the network in it, on as many threads as torch takes."""
    runtime = _imported("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is wrong is raised as well
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _example(config: ModelConfig, photos: int, height: int, width: int) -> tuple[Any, ...]:
    """Random numbers for the network: xt, t, y, and features."""
    generator = torch.Generator().manual_seed(0)
    scale = config.chroma_scale
    sizes = {level: (height // scale // 2**level, width // scale // 2**level) for level in config.encoded}
    return (
        torch.randn(photos, CHROMA_CHANNELS, height // scale, width // scale, generator=generator),
        torch.tensor([1]),
        torch.rand(photos, 1, height, width, generator=generator) * 2 - 1,
        [
            torch.rand(photos, channels, *sizes[level], generator=generator)
            for level, (_, channels) in config.encoded.items()
        ],
    )


def _captured(network: UNet) -> Any:
    """The network's program as torch.onnx has it; batch, rows and columns are free."""
    config, side = network.config, network.config.multiple
    batch, rows, columns = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))

    def free(pixels: int) -> dict[int, Any]:
        """Axes of a map that has `pixels` by `pixels` where a photo has its smallest size."""
        return {
            0: batch,
            2: rows if pixels == 1 else pixels * rows,
            3: columns if pixels == 1 else pixels * columns,
        }

    chroma = side // config.chroma_scale
    shapes = (free(chroma), None, free(side), [free(chroma // 2**level) for level in config.encoded])
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells of operators that nobody has asked for
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # that one name, as it should, stands for the same axis of several inputs
        program = torch.export.export(network, _example(config, 2, 2 * side, 3 * side), dynamic_shapes=shapes)
        return torch.onnx.export(
            program,
            dynamo=True,
            input_names=inputs(config),
            output_names=["output"],
            opset_version=OPSET,
            verbose=False,
        )
