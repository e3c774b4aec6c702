"""What a stage's network is told: noise loss, distance of colours in VGG16 features, a discriminator's opinion.

    L = w_noise L_noise + w_perc sum_l ||f_l(rgb_hat) - f_l(rgb)||^2 / ||f_l(rgb)||^2 + w_adv lambda L_G

Source of comparing pictures in VGG's features: Johnson, Alahi & Fei-Fei 2016, equation 2; of lambda: Esser et al. 2021
(VQGAN), equation 7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photochrom import processes
from photochrom.config import Config, StageConfig
from photochrom.diffusion import color
from photochrom.diffusion.diffusion import Diffusion
from photochrom.diffusion.vgg16 import VGG16
from photochrom.model_folder import load_tensors
from photochrom.training.discriminator import PatchDiscriminator, discriminator_loss, generator_loss

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


class Whole(NamedTuple):
    """What a part of a step's photos has to know of the whole, so that the losses of all parts add up to the whole's."""

    compared: Tensor  # (B,) bool: which of the part's photos have their colours compared
    photos: int  # in the whole step
    photos_compared: int


class Noisy(NamedTuple):
    """A batch as the network sees it, and what it is made of."""

    y: Tensor  # (B,1,H,W) luma in [-1,1]
    x0: Tensor  # (B,2,h,w) true chroma
    eps: Tensor  # (B,2,h,w) noise
    t: Tensor  # (B,) time steps
    xt: Tensor  # (B,2,h,w) noisy chroma
    features: Sequence[Tensor] = ()  # what the encoder sees in y, (B,C,h,w) each
    whole: Whole | None = None  # that this batch is a part of, if it is one
    target: Tensor | None = None  # (B,2,h,w) what the network should say, if a teacher says it
    sighted: Tensor | None = None  # (B,) 1, or 0 for photos that are learnt from without the encoder

    def only(self, where: Tensor | slice) -> Noisy:
        """The photos at these places."""
        y, x0, eps, t, xt = (tensor[where] for tensor in self[:5])
        whole = self.whole and self.whole._replace(compared=self.whole.compared[where])
        target = None if self.target is None else self.target[where]
        sighted = None if self.sighted is None else self.sighted[where]
        return Noisy(y, x0, eps, t, xt, [each[where] for each in self.features], whole, target, sighted)


def lift_shadows(rgb: Tensor, y: Tensor) -> Tensor:
    """The picture as if lit evenly: rgb (B,3,H,W) divided by Y + 0.05, where Y = (y + 1) / 2 of luma y (B,1,H,W).

    Black is multiplied by 20, middle gray by 1.8, white by 0.95. To VGG16 a dark photo is black whatever tints it has; lit
    like this, they count as much as in the light. Linear in rgb; hue and saturation stay.
    """
    return rgb / ((y + 1) / 2).clamp_min(0).add(0.05)


class StageLoss:
    """The combined loss of one stage, with the discriminator and its optimiser if the stage has one.

    Perceptual and adversarial terms act on the clean chroma that the network's output stands for, at chroma's size, and
    only for some of a batch's photos: those at noise levels from `perceptual_from` on, where v-prediction's x0 is the
    expected colour and there is something to correct, at most `perceptual_share` of the batch.
    """

    def __init__(self, stage: StageConfig, config: Config, device: torch.device) -> None:
        self.stage = stage
        self.diffusion = Diffusion(config.diffusion)
        self.perceptual: PerceptualLoss | None = None
        self.discriminator: PatchDiscriminator | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        if stage.perceptual:
            self.perceptual = PerceptualLoss(VGG16.load(config.training.vgg_weights)).to(device)
        if stage.use_gan:
            with torch.random.fork_rng():
                torch.manual_seed(config.training.seed)
                self.discriminator = PatchDiscriminator().to(device)
            self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def chosen(self, t: Tensor, share: float = 1.0) -> Tensor:
        """Which photos of a batch, by their time steps t (B,), have their colours compared: (n,) indices."""
        gate = self.stage.perceptual_from * self.diffusion.config.timesteps
        return (t >= gate).nonzero()[: math.ceil(share * len(t)), 0]

    def whole(self, t: Tensor) -> Whole:
        """A step with these time steps (B,)."""
        compared = torch.zeros(len(t), dtype=torch.bool, device=t.device)
        compared[self.chosen(t, self.stage.perceptual_share)] = True
        return Whole(compared, len(t), int(compared.sum()))

    def trust(self, t: Tensor) -> Tensor:
        """Weight of a photo's colours by its time step, (n,): 1 for v, whose x0 is the expected chroma at any noise.

        The x0 of an epsilon prediction has its error multiplied by sqrt((1 - alpha_bar) / alpha_bar), and is worthless
        near pure noise; alpha_bar takes that back.
        """
        if self.diffusion.config.prediction == "v":
            return torch.ones(len(t), device=t.device)
        return self.diffusion.alpha_bar[t.cpu()].float().to(t.device)

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

    def __call__(
        self, batch: Noisy, output: Tensor, last_layer: Tensor, step: int
    ) -> tuple[Tensor, dict[str, float]]:
        """What to call backward on, and every term with its weight: this batch's part of each, where it is part of a whole.

        output: (B,2,h,w), the network's for this batch; last_layer: the weight at which gradients are balanced; step:
        steps of this stage so far. The discriminator's gradients, if there is one, are added up here; `learn` takes its step.
        Of several processes each is here with a part at the same time, and gradients are balanced for these parts together.

        Each term is differentiated once, down to the output; the sum of these gradients then goes through the network
        in one pass. That is what makes the gradients' ratios free to measure.
        """
        stage = self.stage
        whole = batch.whole or self.whole(batch.t)
        share = len(batch.t) / whole.photos
        terms = {"noise": share * F.mse_loss(output, self.target(batch))}
        weights = {"noise": stage.noise}
        log: dict[str, float] = {}
        if (self.perceptual or self.discriminator) and whole.photos_compared:
            where = whole.compared.nonzero()[:, 0]  # possibly none of this part
            luma, rgb_hat, rgb = self.colours(batch.only(where), output[where])
            if self.perceptual:
                distances = self.trust(batch.t[where]) * self.perceptual(rgb_hat, rgb)  # (n,)
                terms["perceptual"] = distances.sum() / whole.photos_compared
                weights["perceptual"] = stage.perceptual
            if self.discriminator:
                log |= self._teach_discriminator(luma, rgb_hat.detach(), rgb, whole.photos_compared)
                if step >= stage.gan_delay:
                    scores = self._judge(luma, rgb_hat)
                    terms["adversarial"] = generator_loss(scores).sum() / whole.photos_compared
                    weights["adversarial"] = stage.adversarial
        gradients = {
            name: torch.autograd.grad(term, output, retain_graph=True)[0] for name, term in terms.items()
        }
        if len(terms) > 1:
            own = [
                weights[name] * torch.autograd.grad(output, last_layer, gradient, retain_graph=True)[0]
                for name, gradient in gradients.items()
            ]
            at_last = dict(zip(gradients, processes.total(torch.stack(own)), strict=True))
            if "perceptual" in at_last:
                perceptual, noise = at_last["perceptual"].norm(), at_last["noise"].norm()
                log["gradient_ratio"] = share * (perceptual / (noise + 1e-12)).item()
            if "adversarial" in at_last:
                # lambda makes the discriminator's gradient as long as that of the rest
                adversarial = at_last.pop("adversarial").norm() / stage.adversarial
                rest = torch.stack(list(at_last.values())).sum(dim=0).norm()
                weights["adversarial"] *= min((rest / (adversarial + 1e-6)).item(), 1e4)
        total = torch.stack([weights[name] * gradient for name, gradient in gradients.items()]).sum(dim=0)
        values = {name: term.item() for name, term in terms.items()}
        log |= values | {f"weighted_{name}": weights[name] * value for name, value in values.items()}
        log["loss"] = sum(weights[name] * value for name, value in values.items())
        return (output * total.detach()).sum(), log

    def _judge(self, luma: Tensor, rgb: Tensor) -> Tensor:
        """The discriminator's scores, as something that its own weights do not learn from."""
        assert self.discriminator is not None
        self.discriminator.requires_grad_(False)
        scores: Tensor = self.discriminator(luma, rgb)
        self.discriminator.requires_grad_(True)
        return scores

    def learn(self) -> None:
        """Let the discriminator take its step: for the training to call once it knows that all numbers are finite."""
        if self.optimizer:
            self.optimizer.step()
        self.forget()

    def forget(self) -> None:
        """Give up the discriminator's gradients."""
        if self.optimizer:
            self.optimizer.zero_grad()

    def gradients(self) -> list[Tensor]:
        """The discriminator's gradients; none without one, or where it had nothing to look at."""
        weights = self.discriminator.parameters() if self.discriminator else ()
        return [weight.grad for weight in weights if weight.grad is not None]

    def _teach_discriminator(
        self, luma: Tensor, rgb_hat: Tensor, rgb: Tensor, photos: int
    ) -> dict[str, float]:
        assert self.discriminator is not None
        true, coloured = self.discriminator(luma.repeat(2, 1, 1, 1), torch.cat([rgb, rgb_hat])).chunk(2)
        loss = discriminator_loss(true, coloured).sum() / photos
        loss.backward()
        patches = photos * true.shape[1:].numel()
        return {
            "discriminator": loss.item(),
            "accuracy_true": (true > 0).sum().item() / patches,
            "accuracy_coloured": (coloured < 0).sum().item() / patches,
        }

    @torch.no_grad()
    def validation(self, batch: Noisy, output: Tensor) -> dict[str, Tensor]:
        """The terms that two epochs can be compared by, one value per photo that they act on."""
        terms = {"noise": (output - self.target(batch)).square().mean(dim=(1, 2, 3))}
        where = self.chosen(batch.t)
        if self.perceptual and len(where):
            _, rgb_hat, rgb = self.colours(batch.only(where), output[where])
            terms["perceptual"] = self.trust(batch.t[where]) * self.perceptual(rgb_hat, rgb)
        return terms

    def state(self) -> dict[str, Any]:
        """`loss_state_dict` of a checkpoint."""
        with_gan = self.discriminator is not None and self.optimizer is not None
        return {
            "mse_weight": self.stage.noise,
            "perceptual_weight": self.stage.perceptual,
            "adversarial_weight": self.stage.adversarial if with_gan else 0.0,
            "use_gan": with_gan,
            "discriminator_state_dict": self.discriminator.state_dict() if self.discriminator else None,
            "discriminator_optimizer_state_dict": self.optimizer.state_dict() if self.optimizer else None,
        }

    def restore(self, state: dict[str, Any], origin: Path) -> None:
        """Take up discriminator and optimiser from a checkpoint, if both it and this stage have them."""
        if self.discriminator and self.optimizer and state["use_gan"]:
            load_tensors(self.discriminator, state["discriminator_state_dict"], origin)
            self.optimizer.load_state_dict(state["discriminator_optimizer_state_dict"])
