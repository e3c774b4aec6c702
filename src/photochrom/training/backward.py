"""From a batch to gradients: in as many parts as memory requires, summed over processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from photochrom import processes
from photochrom.config import TrainingConfig
from photochrom.diffusion.unet import UNet
from photochrom.precision import Arithmetic
from photochrom.training.cuda_graph import Replayed
from photochrom.training.distillation import Teacher
from photochrom.training.losses import StageLoss
from photochrom.training.noisy import Noisy
from photochrom.training.workers import Workers


class Backward:
    """Computes the gradients of a network's weights.

    Splits batches into parts if need be; replays recorded passes on a GPU.
    """

    def __init__(
        self,
        network: UNet,
        arithmetic: Arithmetic,
        options: TrainingConfig,
        workers: Workers,
        free_memory: Callable[[], None],
    ) -> None:
        """free_memory: called when memory runs out, to free what training can do without."""
        self.workers = workers
        self.network, self.arithmetic, self.free_memory = network, arithmetic, free_memory
        self.batch_size = options.batch_size
        self.weights = list(network.parameters())  # collected once: it takes a while
        self.shares = workers.shares(self.weights)
        self.draws = options.draws
        self.most_parts = options.batch_size * options.draws // processes.count()  # of one drawing each
        self.parts = min(options.accumulate, self.most_parts)
        # A recorded graph overwrites gradients; parts have to add them up. Nor can it look for equal photos,
        # as an encoder does with several draws.
        draws_once = not network.encoder or options.draws == 1
        self.replays = arithmetic.device.type == "cuda" and self.parts == 1 and draws_once
        self.replayed: dict[torch.Size, Replayed] = {}  # by the shape of the batch's luma
        self.notes: list[str] = []  # for the user

    def __call__(
        self, batch: Noisy, losses: StageLoss, teacher: Teacher | None, step: int
    ) -> dict[str, float]:
        """Set the gradients of one batch. Returns its losses by name.

        If any process runs out of memory, all of them split this and later batches into more parts. step:
        number of steps done in this stage.
        """
        try:
            return self.gradients(batch, losses, teacher, step)
        except processes.OtherProcessFailed:
            pass
        except RuntimeError as error:
            # torch.OutOfMemoryError is a RuntimeError; on a processor torch raises a plain one.
            if "memory" not in str(error).lower() or self.parts == self.most_parts:
                raise
            processes.meet(trouble=True)
        self.clear_gradients(losses)
        self.parts = min(2 * self.parts, self.most_parts)
        # Parts cannot use it, and its memory may be the memory that is missing.
        self.replays, self.replayed = False, {}
        self.free_memory()
        self.notes.append(
            f"out of memory: processing batches in parts of {math.ceil(len(batch.t) / self.parts)}; "
            f"the batch size stays {self.batch_size}"
        )
        return self(batch, losses, teacher, step)

    def gradients(
        self, batch: Noisy, losses: StageLoss, teacher: Teacher | None, step: int
    ) -> dict[str, float]:
        """Sum gradients and losses over parts and processes.

        A method of its own, so that failing frees its memory. Up to rounding, the sums do not depend on the
        number of parts and processes, with two exceptions: dropout, and the discriminator's term, which each
        part balances by itself.
        """

        def loss_of(part: Noisy) -> tuple[Tensor, dict[str, float]]:
            output = self.output(part)
            if teacher:
                with self.arithmetic.autocast():
                    part = part._replace(target=teacher.target(part))
            return losses(part, output, self.network.last_layer, step)

        def gradients_of(part: slice) -> tuple[Sequence[Tensor | None], dict[str, float]]:
            loss, log = loss_of(batch.only(part))
            return torch.autograd.grad(loss, self.weights, allow_unused=True), log

        logs = []
        if self.parallel(losses):
            parts = self.workers.slices(len(batch.t))
            for number, (gradients, log) in enumerate(self.workers.map(gradients_of, parts), start=1):
                self.add(gradients, workers_are_free=number == len(parts))
                logs.append(log)
        else:
            for number in range(self.parts):
                loss, log = loss_of(batch.only(slice(number, None, self.parts)))
                self.arithmetic.scaler.scale(loss).backward()
                if self.replays:
                    self.replayed[batch.y.shape].backward()
                logs.append(log)
        own = [weight.grad for weight in self.weights if weight.grad is not None]
        processes.add_up([*own, *losses.gradients()])
        names = list(logs[0])
        sums = torch.tensor([sum(log[name] for log in logs) for name in names], dtype=torch.float64)
        found = dict(zip(names, processes.total(sums.to(processes.connect())).tolist(), strict=True))
        if discriminator := losses.gradients():
            found["discriminator_gradient"] = nn.utils.get_total_norm(discriminator).item()
        return found

    def add(self, gradients: Sequence[Tensor | None], workers_are_free: bool) -> None:
        """Add a part's gradients to those of the parts before it."""

        def add_at(places: Sequence[int]) -> None:
            for place in places:
                weight, gradient = self.weights[place], gradients[place]
                if gradient is not None:
                    weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)

        if workers_are_free:
            list(self.workers.map(add_at, self.shares))
        else:
            add_at(range(len(gradients)))

    def parallel(self, losses: StageLoss) -> bool:
        """Whether threads share a batch. Not if a discriminator learns part by part, or memory is short."""
        return self.workers.parts > 1 and self.parts == 1 and not losses.discriminator

    def division(self, losses: StageLoss) -> dict[str, int]:
        """How the work on a batch is divided, as the history records it (see `Epoch`)."""
        if self.parallel(losses):
            workers = self.workers
            return {"parts": workers.parts, "workers": workers.count, "threads": workers.threads}
        return {"parts": self.parts, "workers": 1, "threads": torch.get_num_threads()}

    def sharing(self, losses: StageLoss) -> AbstractContextManager[None]:
        """A block in which this thread leaves its workers their share of the processor."""
        return self.workers.sharing() if self.parallel(losses) else nullcontext()

    def output(self, batch: Noisy) -> Tensor:
        """The network's output for a batch, (B,2,h,w), with its graph of gradients."""
        xt, t, y, features = batch.xt, batch.t, batch.y, batch.features
        mask = batch.feature_mask  # only where the encoder learns
        if self.replays:
            passes = self.replayed.get(y.shape)
            if passes is None or passes.encodes != (mask is not None):
                passes = Replayed(self.network, self.arithmetic.dtype, encodes=mask is not None)
                self.replayed[y.shape] = passes
            trunk = passes.forward(xt, t, y, *(features if mask is None else [mask]))
            with self.arithmetic.autocast():
                return self.network.head(trunk).float()
        with self.arithmetic.autocast():
            if self.network.encoder and mask is not None:
                seen, places = y, slice(None)
                if self.draws > 1:
                    seen, places = torch.unique(y, dim=0, return_inverse=True)
                encoded = [each[places] for each in self.network.encoder(seen)]
                features = [each * mask[:, None, None, None] for each in encoded]
            output: Tensor = self.network(xt, t, y, features)
        return output.float()

    def clip(self, optimizer: torch.optim.Optimizer, longest: float) -> float:
        """Scale all gradients down to a norm of at most `longest`. Returns the norm before."""
        self.arithmetic.scaler.unscale_(optimizer)
        return float(nn.utils.clip_grad_norm_(self.weights, longest))

    def clear_gradients(self, losses: StageLoss) -> None:
        """Clear the gradients of the network and of the discriminator."""
        for weight in self.weights:
            weight.grad = None
        losses.clear_gradients()
