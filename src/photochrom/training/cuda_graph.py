"""Recorded passes on a GPU: records the forward and backward pass once, and replays them in every step.

A GPU finishes the kernels of a small network faster than a processor can launch them. A CUDA graph launches
all of them at once. docs/measurements/gpu.md says how much faster that is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from photochrom.diffusion.unet import UNet

WARM_UP = 3  # passes before recording, in which libraries choose and load their kernels


class Replayed:
    """`UNet.trunk` and its gradients, for batches of the first batch's shape.

    If the encoder learns, its pass is part of them. The head stays outside: losses ask for the gradient of
    its weight alone, which would cost a whole backward pass here.
    """

    def __init__(self, network: UNet, dtype: torch.dtype | None, encodes: bool) -> None:
        """dtype: a 16-bit type for the arithmetic of the passes, or None for float32.

        encodes: whether the network's encoder learns, so that its pass is part of the recorded ones.
        """
        self.network, self.dtype, self.encodes = network, dtype, encodes
        self.recorded: tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph] | None = None

    def forward(self, *batch: Tensor) -> Tensor:
        """`UNet.trunk` of xt, t, y and the features, or the feature mask if the encoder learns.

        The next call overwrites the result; `backward` reads its gradient.
        """
        forward, _ = self.recorded or self._record(batch)
        for place, tensor in zip(self.batch, batch, strict=True):
            place.copy_(tensor)
        forward.replay()
        self.result = self.found.detach().requires_grad_()
        return self.result

    def backward(self) -> None:
        """Set the gradients of the weights, overwriting any. The next call overwrites them in turn."""
        assert self.recorded is not None
        assert self.result.grad is not None
        self.gradient.copy_(self.result.grad)
        self.recorded[1].replay()
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient

    def _record(self, batch: Sequence[Tensor]) -> tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph]:
        self.batch = [each.clone() for each in batch]
        left_out = ("head.",) if self.encodes else ("head.", "encoder.")
        weights = self.network.named_parameters()
        self.weights = [weight for name, weight in weights if not name.startswith(left_out)]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        # A resumed training records in another step; what dropout draws must not depend on that.
        with torch.random.fork_rng(devices=[self.batch[0].device]), torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                found = self._trunk()
                torch.autograd.grad(found, self.weights, torch.zeros_like(found), allow_unused=True)
            del found
        torch.cuda.current_stream().wait_stream(aside)
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # With "global", recording fails if another thread, such as the watchdog of NCCL, calls the GPU.
        with torch.cuda.graph(forward, capture_error_mode="thread_local"):
            self.found = self._trunk()
        self.gradient = torch.zeros_like(self.found)
        with torch.cuda.graph(backward, pool=forward.pool(), capture_error_mode="thread_local"):
            # The encoder's last stages may be unused: not every network has a level for each map.
            gradients = torch.autograd.grad(self.found, self.weights, self.gradient, allow_unused=True)
            # The fused optimiser refuses a gradient that lies in memory in another order than its weight.
            self.gradients = [
                None if gradient is None else torch.empty_like(weight).copy_(gradient)
                for weight, gradient in zip(self.weights, gradients, strict=True)
            ]
        # Its autograd graph would stay tied to this recording's stream, in which the next one is not.
        self.found = self.found.detach()
        self.recorded = forward, backward
        return self.recorded

    def _trunk(self) -> Tensor:
        xt, t, y, *features = self.batch
        # A cache would hold the weights as rounded while recording, and never be updated.
        with torch.autocast("cuda", self.dtype, enabled=self.dtype is not None, cache_enabled=False):
            if self.encodes:
                assert self.network.encoder is not None
                (mask,) = features
                features = [each * mask[:, None, None, None] for each in self.network.encoder(y)]
            return self.network.trunk(xt, t, y, features)
