"""Baseline (c): a conditional GAN. The same network as generator, with L1 and a PatchGAN as losses.

Source: Isola et al. 2017 (pix2pix), equations 1 to 4 and section 3.3 (Adam with beta1 = 0.5 and a learning
rate of 2e-4, L1 weighted 100). Two things differ. The generator predicts chroma and takes luma as given, like
all rows but (b). The discriminator is the package's, with spectral instead of batch normalisation, and
patches of 34 pixels, half of a photo of 64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from photochrom.config import Config
from photochrom.data.pack import Pack
from photochrom.diffusion import color
from photochrom.evaluation.candidates import given_luma
from photochrom.training.backward import Backward
from photochrom.training.discriminator import PatchDiscriminator
from photochrom.training.noisy import Noisy
from photochrom.training.state import Training
from regression import guess

L1_WEIGHT, LEARNING_RATE, BETAS = 100.0, 2e-4, (0.5, 0.999)


def judged(scores: Tensor, true: bool) -> Tensor:
    """-log D for scores that should say "true", -log(1 - D) for the others. Source: equation 1."""
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(true)))


class Contest(Backward):
    """L1, and a discriminator with its own optimiser."""

    def __init__(self, training: Training) -> None:
        options = training.config.training
        super().__init__(
            training.network, training.arithmetic, options, training.workers, training.inputs.free_memory
        )
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            self.discriminator = PatchDiscriminator().to(training.device)
        self.judge_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=LEARNING_RATE, betas=BETAS
        )

    def gradients(self, batch: Noisy, *_: object) -> dict[str, float]:
        """A step of the discriminator, then the generator's gradients. Ignores noise and time steps."""
        with self.arithmetic.autocast():
            c_hat = guess(self.network, batch.y, self.network.config.chroma_scale).float()
        rgb, rgb_hat = color.to_rgb(batch.y, batch.x0), color.to_rgb(batch.y, c_hat)  # (B, 3, H, W)
        self.judge_optimizer.zero_grad()
        true, made = self.discriminator(batch.y.repeat(2, 1, 1, 1), torch.cat([rgb, rgb_hat.detach()])).chunk(
            2
        )
        teaching = (judged(true, True) + judged(made, False)) / 2  # halved as in section 3.3
        torch.autograd.backward(teaching)
        self.judge_optimizer.step()
        self.discriminator.requires_grad_(False)
        adversarial = judged(self.discriminator(batch.y, rgb_hat), True)
        self.discriminator.requires_grad_(True)
        l1 = F.l1_loss(2 * rgb_hat, 2 * rgb)  # of pictures in [-1, 1]
        loss = l1 + adversarial / L1_WEIGHT  # Adam does not mind the scale, but the loop's clipping would
        torch.autograd.backward(loss)
        losses = {"loss": loss, "l1": l1, "adversarial": adversarial, "discriminator": teaching}
        return {name: value.item() for name, value in losses.items()}


class Pix2Pix(Training):
    """The package's training with other losses and optimiser settings."""

    title = "pix2pix"

    def __init__(self, config: Config, pack: Pack) -> None:
        options = config.training.model_copy(update={"learning_rate": LEARNING_RATE, "weight_decay": 0.0})
        super().__init__(config.model_copy(update={"training": options}), pack)
        for group in self.optimizer.param_groups:
            group["betas"], group["weight_decay"] = BETAS, 0.0
        self.backward = Contest(self)

    @torch.inference_mode()
    def paint(self, rgb: Tensor, seeds: Sequence[int], steps: int) -> tuple[Tensor, Tensor]:
        """See `PhotochromV1.paint`. Ignores seeds and steps."""
        y = given_luma(rgb)
        return y, guess(self.averaged, y.to(self.device), self.config.model.chroma_scale).cpu()
