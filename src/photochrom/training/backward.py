"""From a batch to gradients: through network and losses in as many parts as memory asks for, added up over processes."""

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
    """Gives a network's weights their gradients; knows in how many parts, and whether a GPU replays its passes."""

    def __init__(
        self,
        network: UNet,
        arithmetic: Arithmetic,
        options: TrainingConfig,
        workers: Workers,
        make_room: Callable[[], None],
    ) -> None:
        """make_room: gives back memory that can be done without."""
        self.workers = workers
        self.network, self.arithmetic, self.make_room = network, arithmetic, make_room
        self.batch_size = options.batch_size
        self.weights = list(network.parameters())  # to collect them takes a while, in every step
        self.most_parts = options.batch_size // processes.count()  # of one photo each
        self.parts = min(options.accumulate, self.most_parts)
        # Parts add up their gradients, for which a graph has no room.
        replays = arithmetic.device.type == "cuda" and self.parts == 1 and not network.encoder
        self.replayed = Replayed(network, arithmetic.dtype) if replays else None
        self.notes: list[str] = []  # for the person who waits

    def __call__(
        self, batch: Noisy, losses: StageLoss, teacher: Teacher | None, step: int
    ) -> dict[str, float]:
        """Gradients of one batch, and its losses. If any process is short of memory, batches go through all in more parts.

        step: how many this stage has taken.
        """
        try:
            return self.gradients(batch, losses, teacher, step)
        except processes.OtherProcessFailed:
            pass
        except RuntimeError as error:
            # torch.OutOfMemoryError is one; on a processor it is a plain RuntimeError.
            if "memory" not in str(error).lower() or self.parts == self.most_parts:
                raise
            processes.meet(trouble=True)
        self.forget(losses)
        self.parts = min(2 * self.parts, self.most_parts)
        self.replayed = None  # parts do without it, and its memory may be what lacks
        self.make_room()
        self.notes.append(
            f"out of memory: batches go through in parts of {math.ceil(len(batch.t) / self.parts)}, "
            f"the batch size of {self.batch_size} is kept"
        )
        return self(batch, losses, teacher, step)

    def gradients(
        self, batch: Noisy, losses: StageLoss, teacher: Teacher | None, step: int
    ) -> dict[str, float]:
        """Add up gradients and losses over parts and processes; a method of its own, so that failing frees its memory.

        The sums do not depend on the number of parts and processes, up to rounding. Two things do: dropout, and the
        discriminator's term, which is balanced in each part by itself.
        """

        def loss_of(part: Noisy) -> tuple[Tensor, dict[str, float]]:
            output = self.answer(part)
            if teacher:
                with self.arithmetic.autocast():
                    part = part._replace(target=teacher.target(part))
            return losses(part, output, self.network.last_layer, step)

        def gradients_of(part: slice) -> tuple[Sequence[Tensor | None], dict[str, float]]:
            loss, log = loss_of(batch.only(part))
            return torch.autograd.grad(loss, self.weights, allow_unused=True), log

        logs = []
        if self.side_by_side(losses):
            for gradients, log in self.workers.map(gradients_of, self.workers.slices(len(batch.t))):
                for weight, gradient in zip(self.weights, gradients, strict=True):
                    if gradient is not None:
                        weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
                logs.append(log)
        else:
            for number in range(self.parts):
                loss, log = loss_of(batch.only(slice(number, None, self.parts)))
                self.arithmetic.scaler.scale(loss).backward()
                if self.replayed:
                    self.replayed.backward()
                logs.append(log)
        learnt = [weight.grad for weight in self.weights if weight.grad is not None]
        processes.add_up([*learnt, *losses.gradients()])
        sums = torch.tensor([sum(log[name] for log in logs) for name in log], dtype=torch.float64)
        log = dict(zip(log, processes.total(sums.to(processes.connect())).tolist(), strict=True))
        if taught := losses.gradients():
            log["discriminator_gradient"] = nn.utils.get_total_norm(taught).item()
        return log

    def side_by_side(self, losses: StageLoss) -> bool:
        """Whether threads take parts of a batch; not where a discriminator learns from each in turn, or memory is short."""
        return self.workers.parts > 1 and self.parts == 1 and not losses.discriminator

    def sharing(self, losses: StageLoss) -> AbstractContextManager[None]:
        """A block in which this thread takes its share of the processor, if others take theirs."""
        return self.workers.sharing() if self.side_by_side(losses) else nullcontext()

    def answer(self, batch: Noisy) -> Tensor:
        """What the network says of a batch, (B,2,h,w), to be differentiated."""
        features = batch.features
        if self.network.encoder and batch.sighted is not None:
            with self.arithmetic.autocast():
                seen_now = self.network.encoder(batch.y)
                features = [each * batch.sighted[:, None, None, None] for each in seen_now]
        seen = (batch.xt, batch.t, batch.y, features)
        trunk = self.replayed.forward(*seen) if self.replayed else None
        with self.arithmetic.autocast():
            answer: Tensor = self.network(*seen) if trunk is None else self.network.head(trunk)
        return answer.float()

    def clip(self, optimizer: torch.optim.Optimizer, longest: float) -> float:
        """Shorten the gradient of all weights to this norm; returns its norm before."""
        self.arithmetic.scaler.unscale_(optimizer)
        return float(nn.utils.clip_grad_norm_(self.weights, longest))

    def forget(self, losses: StageLoss) -> None:
        """Give up all gradients."""
        for weight in self.weights:
            weight.grad = None
        losses.forget()
