"""PatchGAN: a small network that tells true from predicted colours, patch by patch.

Source of the patches: Isola et al. 2017 (pix2pix), section 3.2.2; of the hinge loss: Lim & Ye 2017, Miyato et
al. 2018. `balancing` decides how much weight it gets.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """(luma, RGB) -> one score per overlapping patch of 34x34 pixels; above 0 means "true".

    It judges at chroma's size. At chroma scale 2, 34 pixels are 68 pixels of the photo (pix2pix's patches
    have 70).
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        widths = (4, channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for number, (before, width) in enumerate(pairwise(widths)):
            stride = 2 if number < 2 else 1
            layers += [spectral_norm(nn.Conv2d(before, width, 4, stride, padding=1)), nn.LeakyReLU(0.2)]
        layers.append(spectral_norm(nn.Conv2d(widths[-1], 1, 4, 1, padding=1)))
        self.layers = nn.Sequential(*layers)
        self.to(memory_format=torch.channels_last)

    def forward(self, y: Tensor, rgb: Tensor) -> Tensor:
        """y (B,1,H,W) in [-1,1], rgb (B,3,H,W) in [0,1] -> scores (B,1,H/4-2,W/4-2)."""
        scores: Tensor = self.layers(torch.cat([y, 2 * rgb - 1], dim=1))
        return scores


def discriminator_loss(true: Tensor, coloured: Tensor) -> Tensor:
    """Hinge loss of scores (B, ...) per photo, (B,).

    (mean max(0, 1 - D(true)) + mean max(0, 1 + D(coloured))) / 2
    """
    return (F.relu(1 - true).flatten(1).mean(dim=1) + F.relu(1 + coloured).flatten(1).mean(dim=1)) / 2


def generator_loss(coloured: Tensor) -> Tensor:
    """-mean D(coloured) per photo, (B,), of scores (B, ...)."""
    return -coloured.flatten(1).mean(dim=1)


class Discriminator:
    """The discriminator and its optimiser. It learns in the same steps as the network that it judges."""

    def __init__(self, seed: int, device: torch.device) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = PatchDiscriminator().to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def judge(self, y: Tensor, rgb: Tensor) -> Tensor:
        """Scores of luma y (n,1,h,w) and colours rgb (n,3,h,w), without gradients for its own weights."""
        self.network.requires_grad_(False)
        scores: Tensor = self.network(y, rgb)
        self.network.requires_grad_(True)
        return scores

    def teach(self, y: Tensor, rgb_hat: Tensor, rgb: Tensor, photos: int) -> dict[str, float]:
        """Add the gradients of its loss, for luma y (n,1,h,w), predicted and true colours (n,3,h,w).

        photos: how many the whole batch compares; these n are a part of them. Returns this part's share of
        loss and accuracies.
        """
        true, coloured = self.network(y.repeat(2, 1, 1, 1), torch.cat([rgb, rgb_hat])).chunk(2)
        loss = discriminator_loss(true, coloured).sum() / photos
        loss.backward()
        patches = photos * true.shape[1:].numel()
        return {
            "discriminator": loss.item(),
            "accuracy_true": (true > 0).sum().item() / patches,
            "accuracy_coloured": (coloured < 0).sum().item() / patches,
        }

    def learn(self) -> None:
        """Step its optimiser and clear its gradients."""
        self.optimizer.step()
        self.clear_gradients()

    def clear_gradients(self) -> None:
        """Clear its gradients."""
        self.optimizer.zero_grad()

    def gradients(self) -> list[Tensor]:
        """Its gradients; none if it has judged nothing yet."""
        return [weight.grad for weight in self.network.parameters() if weight.grad is not None]
