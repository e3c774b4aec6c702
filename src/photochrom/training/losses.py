"""What a stage's network is told: noise loss, distance of colours in VGG16 features, a discriminator's opinion.

    L = w_noise L_noise + w_perc sum_l ||f_l(rgb_hat) - f_l(rgb)||^2 / ||f_l(rgb)||^2 + w_adv lambda L_G

Source of comparing pictures in VGG's features: Johnson, Alahi & Fei-Fei 2016, equation 2. lambda is in `balancing`, and L_G
in `discriminator`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photochrom.config import Config, StageConfig
from photochrom.diffusion import color
from photochrom.diffusion.diffusion import Diffusion
from photochrom.diffusion.vgg16 import VGG16
from photochrom.model_folder import load_tensors
from photochrom.training.balancing import balance
from photochrom.training.discriminator import Discriminator, generator_loss
from photochrom.training.noisy import Noisy, WholeBatch

COMPARED = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


class PerceptualLoss(nn.Module):
    """sum over layers of ||f(rgb_hat) - f(rgb)||^2 / ||f(rgb)||^2, per photo.

    Each layer is measured against the true photo's own features, so that none outweighs the others. True features are
    computed without gradient.
    """

    def __init__(self, vgg: VGG16) -> None:
        super().__init__()
        self.vgg = vgg

    def forward(self, rgb_hat: Tensor, rgb: Tensor) -> Tensor:
        """rgb_hat, rgb: (B,3,H,W), 0 to 1 (beyond is allowed, and compared as it is). Returns (B,), 0 for equal photos."""
        with torch.no_grad():
            true = self.vgg(rgb, last=COMPARED[-1])
        found = self.vgg(rgb_hat, last=COMPARED[-1])
        distances = [
            (found[layer] - true[layer]).square().sum(dim=(1, 2, 3)) / true[layer].square().sum(dim=(1, 2, 3))
            for layer in COMPARED
        ]
        return torch.stack(distances).sum(dim=0)  # (B,)


def lift_shadows(rgb: Tensor, y: Tensor) -> Tensor:
    """The picture as if lit evenly: rgb (B,3,H,W) divided by Y + 0.05, where Y = (y + 1) / 2 of luma y (B,1,H,W).

    Black is multiplied by 20, middle gray by 1.8, white by 0.95. To VGG16 a dark photo is black whatever tints it has; lit
    like this, they count as much as in the light. Linear in rgb; hue and saturation stay.
    """
    return rgb / ((y + 1) / 2).clamp_min(0).add(0.05)


class StageLoss:
    """The combined loss of one stage, with the discriminator if the stage has one.

    Perceptual and adversarial terms act on the clean chroma that the network's output stands for, at chroma's size, and
    only for some of a batch's photos: those at noise levels from `perceptual_from` on, where v-prediction's x0 is the
    expected colour and there is something to correct, at most `perceptual_share` of the batch.
    """

    def __init__(self, stage: StageConfig, config: Config, device: torch.device) -> None:
        self.stage = stage
        self.diffusion = Diffusion(config.diffusion)
        self.perceptual: PerceptualLoss | None = None
        self.discriminator: Discriminator | None = None
        if stage.perceptual:
            self.perceptual = PerceptualLoss(VGG16.load(config.training.vgg_weights)).to(device)
        if stage.use_gan:
            self.discriminator = Discriminator(config.training.seed, device)

    def chosen(self, t: Tensor, share: float = 1.0) -> Tensor:
        """Which photos of a batch, by their time steps t (B,), have their colours compared: (n,) indices."""
        gate = self.stage.perceptual_from * self.diffusion.config.timesteps
        return (t >= gate).nonzero()[: math.ceil(share * len(t)), 0]

    def whole(self, t: Tensor) -> WholeBatch:
        """A step with these time steps (B,)."""
        compared = torch.zeros(len(t), dtype=torch.bool, device=t.device)
        compared[self.chosen(t, self.stage.perceptual_share)] = True
        return WholeBatch(compared, len(t), int(compared.sum()))

    def trust(self, t: Tensor) -> Tensor:
        """Weight of a photo's colours by its time step, (n,): 1 for v, whose x0 is the expected chroma at any noise.

        The x0 of an epsilon prediction has its error multiplied by sqrt((1 - alpha_bar) / alpha_bar), and is worthless
        near pure noise; alpha_bar takes that back.
        """
        if self.diffusion.config.prediction == "v":
            return torch.ones(len(t), device=t.device)
        return self.diffusion.signal_share(t)

    def target(self, batch: Noisy) -> Tensor:
        """What the network should say, (B,2,h,w)."""
        if batch.target is not None:
            return batch.target
        return self.diffusion.target(batch.x0, batch.eps, batch.t)

    def colours(self, batch: Noisy, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Luma, predicted RGB and true RGB at chroma's size, shadows lifted. Not clamped: see `color.to_rgb`."""
        y = F.avg_pool2d(batch.y, batch.y.shape[-1] // batch.x0.shape[-1])  # (B, 1, h, w)
        x0_hat = self.diffusion.predict_x0(batch.xt, output, batch.t)
        return y, lift_shadows(color.to_rgb(y, x0_hat), y), lift_shadows(color.to_rgb(y, batch.x0), y)

    def terms(
        self, batch: Noisy, output: Tensor, whole: WholeBatch, step: int
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """L_noise, L_perc and L_G, each as far as the stage has it, and what the discriminator says of its own lesson.

        The discriminator's gradients are added up here; `learn` takes its step.
        """
        terms = {"noise": len(batch.t) / whole.photos * F.mse_loss(output, self.target(batch))}
        log: dict[str, float] = {}
        if (self.perceptual or self.discriminator) and whole.photos_compared:
            where = whole.compared.nonzero()[:, 0]  # possibly none of this part
            luma, rgb_hat, rgb = self.colours(batch.only(where), output[where])
            if self.perceptual:
                distances = self.trust(batch.t[where]) * self.perceptual(rgb_hat, rgb)  # (n,)
                terms["perceptual"] = distances.sum() / whole.photos_compared
            if self.discriminator:
                log = self.discriminator.teach(luma, rgb_hat.detach(), rgb, whole.photos_compared)
                if step >= self.stage.gan_delay:
                    scores = self.discriminator.judge(luma, rgb_hat)
                    terms["adversarial"] = generator_loss(scores).sum() / whole.photos_compared
        return terms, log

    def __call__(
        self, batch: Noisy, output: Tensor, last_layer: Tensor, step: int
    ) -> tuple[Tensor, dict[str, float]]:
        """What to call backward on, and every term with its weight: this batch's part of each, where it is part of a whole.

        output: (B,2,h,w), the network's for this batch; last_layer: the weight at which gradients are balanced; step:
        steps of this stage so far. Several processes come here with a part each at the same time, and gradients are
        balanced for these parts together.

        Each term is differentiated once, down to the output; the sum of these gradients then goes through the network
        in one pass. That is what makes the gradients' ratios free to measure.
        """
        whole = batch.whole or self.whole(batch.t)
        terms, log = self.terms(batch, output, whole, step)
        stage = self.stage
        weights = {"noise": stage.noise, "perceptual": stage.perceptual, "adversarial": stage.adversarial}
        gradients = {
            name: torch.autograd.grad(term, output, retain_graph=True)[0] for name, term in terms.items()
        }
        if len(terms) > 1:
            ratio, factor = balance(gradients, weights, output, last_layer)
            weights["adversarial"] *= factor
            if "perceptual" in terms:
                log["gradient_ratio"] = len(batch.t) / whole.photos * ratio
        total = torch.stack([weights[name] * gradient for name, gradient in gradients.items()]).sum(dim=0)
        values = {name: term.item() for name, term in terms.items()}
        log |= values | {f"weighted_{name}": weights[name] * value for name, value in values.items()}
        log["loss"] = sum(weights[name] * value for name, value in values.items())
        return (output * total.detach()).sum(), log

    @torch.no_grad()
    def validation(self, batch: Noisy, output: Tensor) -> dict[str, Tensor]:
        """The terms that two epochs can be compared by, one value per photo that they act on."""
        terms = {"noise": (output - self.target(batch)).square().mean(dim=(1, 2, 3))}
        where = self.chosen(batch.t)
        if self.perceptual and len(where):
            _, rgb_hat, rgb = self.colours(batch.only(where), output[where])
            terms["perceptual"] = self.trust(batch.t[where]) * self.perceptual(rgb_hat, rgb)
        return terms

    def learn(self) -> None:
        """Let the discriminator take its step: for the training to call once it knows that all numbers are finite."""
        if self.discriminator:
            self.discriminator.learn()

    def forget(self) -> None:
        """Give up the discriminator's gradients."""
        if self.discriminator:
            self.discriminator.forget()

    def gradients(self) -> list[Tensor]:
        """The discriminator's gradients; none without one, or where it had nothing to look at."""
        return self.discriminator.gradients() if self.discriminator else []

    def state(self) -> dict[str, Any]:
        """`loss_state_dict` of a checkpoint."""
        discriminator = self.discriminator
        return {
            "mse_weight": self.stage.noise,
            "perceptual_weight": self.stage.perceptual,
            "adversarial_weight": self.stage.adversarial if discriminator else 0.0,
            "use_gan": discriminator is not None,
            "discriminator_state_dict": discriminator.network.state_dict() if discriminator else None,
            "discriminator_optimizer_state_dict": discriminator.optimizer.state_dict()
            if discriminator
            else None,
        }

    def restore(self, state: dict[str, Any], origin: Path) -> None:
        """Take up discriminator and optimiser from a checkpoint, if both it and this stage have them."""
        if self.discriminator and state["use_gan"]:
            load_tensors(self.discriminator.network, state["discriminator_state_dict"], origin)
            self.discriminator.optimizer.load_state_dict(state["discriminator_optimizer_state_dict"])
