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

    The head stays outside: losses ask for the gradient of its weight alone, which would cost a whole backward
    pass here.
    """

    def __init__(self, network: UNet, dtype: torch.dtype | None) -> None:
        """dtype: a 16-bit type for the arithmetic of the passes, or None for float32."""
        self.network, self.dtype = network, dtype
        self.recorded: tuple[torch.cuda.CUDAGraph, torch.cuda.CUDAGraph] | None = None

    def forward(self, xt: Tensor, t: Tensor, y: Tensor, features: Sequence[Tensor]) -> Tensor:
        """See `UNet.trunk`. The next call overwrites the result; `backward` reads its gradient."""
        batch = (xt, t, y, *features)
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
        weights = self.network.named_parameters()
        self.weights = [weight for name, weight in weights if not name.startswith("head.")]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        # A resumed training records in another step; what dropout draws must not depend on that.
        with torch.random.fork_rng(devices=[self.batch[0].device]), torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                found = self._trunk()
                torch.autograd.grad(found, self.weights, torch.zeros_like(found))
            del found
        torch.cuda.current_stream().wait_stream(aside)
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        # With "global", recording fails if another thread, such as the watchdog of NCCL, calls the GPU.
        with torch.cuda.graph(forward, capture_error_mode="thread_local"):
            self.found = self._trunk()
        self.gradient = torch.zeros_like(self.found)
        with torch.cuda.graph(backward, pool=forward.pool(), capture_error_mode="thread_local"):
            self.gradients = torch.autograd.grad(self.found, self.weights, self.gradient)
        self.recorded = forward, backward
        return self.recorded

    def _trunk(self) -> Tensor:
        xt, t, y, *features = self.batch
        # A cache would hold the weights as rounded while recording, and never be updated.
        with torch.autocast("cuda", self.dtype, enabled=self.dtype is not None, cache_enabled=False):
            return self.network.trunk(xt, t, y, features)
