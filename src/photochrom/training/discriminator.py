"""PatchGAN: a small network that tells true from predicted colours, patch by patch.

Source of the patches: Isola et al. 2017 (pix2pix), section 3.2.2; of the hinge loss: Lim & Ye 2017, Miyato et al. 2018.
How much it may say is in `balancing`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """(luma, RGB) -> one score per overlapping patch of 34x34 pixels; above 0 means "true".

    Runs at chroma's size, where 34 pixels are 68 of a photo at chroma scale 2 (pix2pix's patches have 70).
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
        """y (B,1,H,W) in [-1,1], rgb (B,3,H,W), 0 to 1 -> scores (B,1,H/4-2,W/4-2)."""
        scores: Tensor = self.layers(torch.cat([y, 2 * rgb - 1], dim=1))
        return scores


def discriminator_loss(true: Tensor, coloured: Tensor) -> Tensor:
    """Hinge loss (mean max(0, 1 - D(true)) + mean max(0, 1 + D(coloured))) / 2 of scores (B, ...), per photo: (B,)."""
    return (F.relu(1 - true).flatten(1).mean(dim=1) + F.relu(1 + coloured).flatten(1).mean(dim=1)) / 2


def generator_loss(coloured: Tensor) -> Tensor:
    """-mean D(coloured) of scores (B, ...), per photo: (B,)."""
    return -coloured.flatten(1).mean(dim=1)


class Discriminator:
    """The network that judges, and its own optimiser; it learns in the same steps as the network that it judges."""

    def __init__(self, seed: int, device: torch.device) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = PatchDiscriminator().to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def judge(self, y: Tensor, rgb: Tensor) -> Tensor:
        """Scores of luma y (n,1,h,w) and colours rgb (n,3,h,w), through which its own weights do not learn."""
        self.network.requires_grad_(False)
        scores: Tensor = self.network(y, rgb)
        self.network.requires_grad_(True)
        return scores

    def teach(self, y: Tensor, rgb_hat: Tensor, rgb: Tensor, photos: int) -> dict[str, float]:
        """Add up its gradients for luma y (n,1,h,w), predicted and true colours (n,3,h,w); returns its loss and accuracy.

        photos: in the whole step, of which these n are a part.
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
        """Take its step, and forget its gradients."""
        self.optimizer.step()
        self.forget()

    def forget(self) -> None:
        """Give up its gradients."""
        self.optimizer.zero_grad()

    def gradients(self) -> list[Tensor]:
        """Its gradients; none where it had nothing to look at."""
        return [weight.grad for weight in self.network.parameters() if weight.grad is not None]
