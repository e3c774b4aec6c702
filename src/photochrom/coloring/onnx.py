"""Exports the network as an ONNX file, and runs such a file with onnxruntime.

The file holds one evaluation of the U-Net, and the model's configuration. It contains no sampler. The encoder
runs once per photo, with torch; its weights come with the package, or in the file if the model trained them.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from photochrom import files, model_folder
from photochrom.config import Config, ModelConfig
from photochrom.diffusion.encoder import Encoder
from photochrom.diffusion.unet import CHROMA_CHANNELS, UNet
from photochrom.errors import PhotochromError

OPSET = 20  # of 2023: it has all that the network needs, and most programs that read ONNX know it
TOLERANCE = 1e-3  # largest difference between outputs of torch and onnxruntime, which are about 1
WEIGHTS_KEY = "weights_sha256"  # checksum of the model.safetensors that the file was made from
ENCODER_KEY = "encoder"  # weights of an encoder that the model trained: a safetensors file in base64


class OnnxNetwork(nn.Module):
    """Stands in for `UNet`, in float32, and runs on the CPU with onnxruntime."""

    def __init__(self, config: ModelConfig, session: Any, encoder: Encoder | None = None) -> None:
        """encoder: one that the model trained."""
        super().__init__()
        self.config = config
        self.session = session
        self.encoder = encoder

    def forward(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """See `UNet.forward`; t is (1,), one step for all photos."""
        values = [xt.float(), t, y.float(), *(each.float() for each in features)]
        feed = {name: value.numpy() for name, value in zip(inputs(self.config), values, strict=True)}
        return torch.from_numpy(self.session.run(None, feed)[0])


class Difference(NamedTuple):
    """The largest difference between onnxruntime and torch on photos of random numbers."""

    photos: int
    height: int
    width: int
    largest: float


def inputs(config: ModelConfig) -> list[str]:
    """The names of the network's inputs: xt, t, y, and one encoder map for each level that takes one."""
    return ["xt", "t", "y", *(layer for layer, _ in config.encoded.values())]


def write_onnx(weights: Path, output: Path) -> list[Difference]:
    """Write the network of a `model.safetensors` as an ONNX file, once it agrees with torch at two shapes.

    The file takes any batch size, and any height and width that are multiples of `config.multiple`. Raises
    PhotochromError if a package is missing, or if onnxruntime's results differ from torch's.
    """
    for library in ("onnx", "onnxruntime", "onnxscript"):
        _imported(library)
    config, tensors = model_folder.read_weights(weights)
    network = UNet.load(config.model, tensors, weights)
    encoder, network.encoder = network.encoder, None
    program = _captured(network)
    checksum = hashlib.sha256(weights.read_bytes()).hexdigest()
    metadata = model_folder.metadata_for(config) | {WEIGHTS_KEY: checksum}
    if encoder:
        trained = {key: tensor.contiguous() for key, tensor in encoder.state_dict().items()}
        metadata[ENCODER_KEY] = base64.b64encode(safetensors.torch.save(trained)).decode("ascii")
    program.model.metadata_props.update(metadata)
    content = program.model_proto.SerializeToString()
    found = compared(network, content)
    files.write_bytes(output, content)
    return found


def compared(network: UNet, content: bytes) -> list[Difference]:
    """Compare the network with its ONNX file at two shapes. Raises PhotochromError if they disagree."""
    side = network.config.multiple
    ported = OnnxNetwork(network.config, _session(content))
    found = []
    for shape in ((1, 4 * side, 4 * side), (3, 2 * side, 5 * side)):
        example = _example(network.config, *shape)
        largest = float((network(*example) - ported(*example)).abs().max())
        if not largest <= TOLERANCE:
            raise PhotochromError(
                f"onnxruntime differs from torch by {largest:.2g} at {shape[1]}x{shape[2]}, more than "
                f"{TOLERANCE:g}: nothing was written; try other versions of onnxruntime and torch"
            )
        found.append(Difference(*shape, largest))
    return found


def read_onnx(path: Path) -> tuple[Config, OnnxNetwork]:
    """Read configuration and network from a file of `write_onnx`.

    Raises PhotochromError for a file that is missing, damaged, from another program, or, as `model.onnx` of a
    model folder, made from other weights than the folder's `model.safetensors`.
    """
    _imported("onnxruntime")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise PhotochromError(f"no {path}: write it with photochrom export MODEL -o {path}") from None
    try:
        session = _session(content)
    except Exception as error:  # onnxruntime's own types have no common base
        raise PhotochromError(f"{path} is damaged, or not an ONNX file: export it again") from error
    metadata = session.get_modelmeta().custom_metadata_map
    config = model_folder.carried_config(metadata, path)
    names = [each.name for each in session.get_inputs()]
    if names != inputs(config.model):
        raise PhotochromError(
            f"{path} takes {', '.join(names)}: this does not fit its configuration; export it again"
        )
    _refuse_other_weights(path, metadata)
    return config, OnnxNetwork(config.model, session, _trained_encoder(config.model, metadata, path))


def _trained_encoder(config: ModelConfig, metadata: Mapping[str, str], path: Path) -> Encoder | None:
    """The encoder that the model trained, if it did. Raises PhotochromError if it is missing or damaged."""
    if not config.train_encoder:
        return None
    try:
        content = base64.b64decode(metadata.get(ENCODER_KEY, ""), validate=True)
        tensors = safetensors.torch.load(content)
    except (ValueError, SafetensorError) as error:
        raise PhotochromError(f"the encoder in {path} cannot be read: {error}; export it again") from None
    encoder = model_folder.with_weights(lambda: Encoder(config, pretrained=False), tensors, path)
    return encoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _refuse_other_weights(path: Path, metadata: Mapping[str, str]) -> None:
    """Raise PhotochromError if the model's weights have changed since its `model.onnx` was written."""
    weights = path.with_name(model_folder.WEIGHTS)
    if path.name != model_folder.ONNX or not weights.exists():
        return
    if hashlib.sha256(weights.read_bytes()).hexdigest() != metadata.get(WEIGHTS_KEY):
        raise PhotochromError(
            f"{path} does not have the weights of {weights}: run photochrom export {path.parent} --overwrite"
        )


def _imported(library: str) -> Any:
    try:
        return import_module(library)
    except ImportError:
        raise PhotochromError(
            f"ONNX files need {library}, which is not installed: pip install 'photochrom[onnx]'"
        ) from None


def _session(content: bytes) -> Any:
    """Load the network into onnxruntime, with as many threads as torch uses."""
    runtime = _imported("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised anyway
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
    """Export the network with torch.onnx; batch, rows and columns stay variable."""
    config, side = network.config, network.config.multiple
    batch, rows, columns = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))

    def free(pixels: int) -> dict[int, Any]:
        """The variable axes of a map that is `pixels` by `pixels` for the smallest photo."""
        return {
            0: batch,
            2: rows if pixels == 1 else pixels * rows,
            3: columns if pixels == 1 else pixels * columns,
        }

    chroma = side // config.chroma_scale
    shapes = (free(chroma), None, free(side), [free(chroma // 2**level) for level in config.encoded])
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns about operators that we do not use
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that inputs share the name of an axis, as they should
        program = torch.export.export(network, _example(config, 2, 2 * side, 3 * side), dynamic_shapes=shapes)
        return torch.onnx.export(
            program,
            dynamo=True,
            input_names=inputs(config),
            output_names=["output"],
            opset_version=OPSET,
            verbose=False,
        )
