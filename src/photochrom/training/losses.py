"""The loss of a stage: noise, distance of colours in VGG16's features, and a discriminator's score.

    L = w_noise L_noise + w_perc sum_l ||f_l(rgb_hat) - f_l(rgb)||^2 / ||f_l(rgb)||^2 + w_adv lambda L_G

Source of the distance in VGG's features: Johnson, Alahi & Fei-Fei 2016, equation 2. `balancing` has lambda,
`discriminator` has L_G.
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

    Dividing by the true photo's features keeps any layer from outweighing the others. True features need no
    gradient.
    """

    def __init__(self, vgg: VGG16) -> None:
        super().__init__()
        self.vgg = vgg

    def forward(self, rgb_hat: Tensor, rgb: Tensor) -> Tensor:
        """rgb_hat, rgb: (B,3,H,W) in [0,1]; values beyond are not clipped.

        Returns (B,), 0 for equal photos.
        """
        with torch.no_grad():
            true = self.vgg(rgb, last=COMPARED[-1])
        found = self.vgg(rgb_hat, last=COMPARED[-1])
        distances = [
            (found[layer] - true[layer]).square().sum(dim=(1, 2, 3)) / true[layer].square().sum(dim=(1, 2, 3))
            for layer in COMPARED
        ]
        return torch.stack(distances).sum(dim=0)  # (B,)


def lift_shadows(rgb: Tensor, y: Tensor) -> Tensor:
    """rgb (B,3,H,W) as if lit evenly: divided by Y + 0.05, where Y = (y + 1) / 2 of luma y (B,1,H,W).

    Black becomes 20 times as bright, middle gray 1.8 times, white 0.95 times. To VGG16 a dark photo is black,
    whatever its tint. After this division tints in the dark count as much as in the light. Linear in rgb; hue
    and saturation stay.
    """
    return rgb / ((y + 1) / 2).clamp_min(0).add(0.05)


class StageLoss:
    """The loss of one stage, and the discriminator if the stage has one.

    The perceptual and adversarial terms judge the clean chroma that the network's output implies, at chroma's
    size. They judge only photos at noise levels from `perceptual_from` on, and at most `perceptual_share` of
    a batch: there v-prediction's x0 is the expected colour, and errors are large enough to correct.
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
        """The photos whose colours to compare, by their time steps t (B,): (n,) indices.

        share: of the batch, at most.
        """
        gate = self.stage.perceptual_from * self.diffusion.config.timesteps
        return (t >= gate).nonzero()[: math.ceil(share * len(t)), 0]

    def whole(self, t: Tensor) -> WholeBatch:
        """What the parts of a batch have to know about it. t: (B,) time steps of the whole."""
        compared = torch.zeros(len(t), dtype=torch.bool, device=t.device)
        compared[self.chosen(t, self.stage.perceptual_share)] = True
        return WholeBatch(compared, len(t), int(compared.sum()))

    def trust(self, t: Tensor) -> Tensor:
        """How far to trust each photo's x0, (n,), by its time step.

        1 for v, whose x0 is the expected chroma at any noise. An epsilon prediction's x0 has its error
        multiplied by sqrt((1 - alpha_bar) / alpha_bar): near pure noise it is worthless. Weighting by
        alpha_bar undoes that.
        """
        if self.diffusion.config.prediction == "v":
            return torch.ones(len(t), device=t.device)
        return self.diffusion.signal_share(t)

    def target(self, batch: Noisy) -> Tensor:
        """What the network should predict, (B,2,h,w)."""
        if batch.target is not None:
            return batch.target
        return self.diffusion.target(batch.x0, batch.eps, batch.t)

    def colours(self, batch: Noisy, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Luma, predicted RGB and true RGB at chroma's size, shadows lifted.

        Not clamped: see `color.to_rgb`.
        """
        y = F.avg_pool2d(batch.y, batch.y.shape[-1] // batch.x0.shape[-1])  # (B, 1, h, w)
        x0_hat = self.diffusion.predict_x0(batch.xt, output, batch.t)
        return y, lift_shadows(color.to_rgb(y, x0_hat), y), lift_shadows(color.to_rgb(y, batch.x0), y)

    def terms(
        self, batch: Noisy, output: Tensor, whole: WholeBatch, step: int
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """L_noise, L_perc and L_G, those that the stage has, and the discriminator's own loss and accuracies.

        Adds up the discriminator's gradients; `learn` steps its optimiser.
        """
        terms = {"noise": len(batch.t) / whole.photos * F.mse_loss(output, self.target(batch))}
        log: dict[str, float] = {}
        if (self.perceptual or self.discriminator) and whole.photos_compared:
            where = whole.compared.nonzero()[:, 0]  # may be empty for this part
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
        """A loss to call backward on, and the value of every term, weighted and not, by name.

        For a part of a batch, values are its share of the whole's. output: (B,2,h,w) of the network.
        last_layer: the weight at which to balance gradients. step: number of steps done in this stage.
        Processes call this at the same time, and balance their parts together.

        Each term is differentiated once, down to the output. The sum of these gradients then goes through the
        network in one pass. So measuring the ratios of gradients costs nothing more.
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
        """The terms that compare between epochs, with one value per photo that they judge."""
        terms = {"noise": (output - self.target(batch)).square().mean(dim=(1, 2, 3))}
        where = self.chosen(batch.t)
        if self.perceptual and len(where):
            _, rgb_hat, rgb = self.colours(batch.only(where), output[where])
            terms["perceptual"] = self.trust(batch.t[where]) * self.perceptual(rgb_hat, rgb)
        return terms

    def learn(self) -> None:
        """Step the discriminator's optimiser. Call it once all numbers of the step are known to be finite."""
        if self.discriminator:
            self.discriminator.learn()

    def clear_gradients(self) -> None:
        """Clear the discriminator's gradients."""
        if self.discriminator:
            self.discriminator.clear_gradients()

    def gradients(self) -> list[Tensor]:
        """The discriminator's gradients; none without one, or if it has judged nothing yet."""
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
        """Restore discriminator and optimiser, if both the checkpoint and this stage have them."""
        if self.discriminator and state["use_gan"]:
            load_tensors(self.discriminator.network, state["discriminator_state_dict"], origin)
            self.discriminator.optimizer.load_state_dict(state["discriminator_optimizer_state_dict"])
