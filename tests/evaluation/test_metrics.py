"""The measures: values by hand or from papers, independent formulas, properties of any photo."""

from __future__ import annotations

import hashlib
import sys
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio

from photochrom.diffusion.vgg16 import VGG16
from photochrom.errors import PhotochromError
from photochrom.evaluation import metrics
from photochrom.evaluation.metrics import Array, Moments


def photos(seed: int, count: int = 2, side: int = 16) -> Array:
    """Random photos of 256 levels."""
    levels = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3))
    return (levels / 255).astype(np.float32)


def flat(*rgb: float, side: int = 16) -> Array:
    return np.full((1, side, side, 3), rgb, dtype=np.float32)


def labs(pixels: list[tuple[float, float, float]]) -> Array:
    """One photo (1,1,N,3) of these Lab pixels."""
    return np.array(pixels)[None, None]


seeds = st.integers(0, 2**32 - 1)


def test_lab_of_pure_red_is_the_published_one() -> None:
    assert metrics.lab(flat(1, 0, 0))[0, 0, 0] == pytest.approx([53.24, 80.09, 67.20], abs=0.02)


def test_ciede2000_of_a_published_pair() -> None:
    # Sharma, Wu & Dalal 2005, table 1, pairs 1 and 25.
    one, other = (
        labs([(50, 2.6772, -79.7751), (60.2574, -34.0099, 36.2677)]),
        labs([(50, 0, -82.7485), (60.4626, -34.1751, 39.4387)]),
    )
    assert metrics.ciede2000(one, other)[0, 0] == pytest.approx([2.0425, 1.2644], abs=1e-4)


def test_ab_distance_and_chroma_leave_lightness_aside() -> None:
    one, other = labs([(10, 1, 2)]), labs([(90, 4, 6)])
    assert metrics.ab_distance(one, other) == pytest.approx(5)
    assert metrics.chroma(labs([(70, -3, 4)])) == pytest.approx(5)


def test_colorfulness_by_hand() -> None:
    # Half red, half green: rg is +255 and -255, so its mean is 0 and its spread 255; yb is 127.5 everywhere.
    photo = np.zeros((1, 2, 2, 3))
    photo[0, :, 0, 0] = photo[0, :, 1, 1] = 1
    assert metrics.colorfulness(photo) == pytest.approx(255 + 0.3 * 127.5)


@given(seeds)
def test_gray_has_no_colour(seed: int) -> None:
    gray = photos(seed)[..., :1].repeat(3, axis=-1)
    assert metrics.colorfulness(gray) == pytest.approx(0, abs=1e-9)
    assert metrics.chroma(metrics.lab(gray)).max() < 0.02


@given(seeds)
def test_the_true_photo_has_no_error(seed: int) -> None:
    true = photos(seed)
    sums = metrics.photo_columns(metrics.pixel_sums(true, true, metrics.lab(true)))
    for name in ("ab", "ciede2000", "dark_error", "dim_error", "false_color"):
        assert sums[name] == pytest.approx(0, abs=1e-6), name
    assert sums["psnr"] == pytest.approx(metrics.MAX_PSNR)
    assert metrics.ssim(true, true) == pytest.approx(1)


@given(seeds, seeds)
def test_psnr_is_that_of_scikit_image(one: int, other: int) -> None:
    a, b = photos(one, 1), photos(other, 1) * 0.5
    expected = peak_signal_noise_ratio(b[0], a[0], data_range=1)  # type: ignore[no-untyped-call]
    assert metrics.psnr(a, b)[0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("side", [8, 16, 64])
def test_ssim_of_two_flat_photos_has_a_closed_form(side: int) -> None:
    a, b, c1 = 0.25, 0.5, 0.01**2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert metrics.ssim(flat(a, a, a, side=side), flat(b, b, b, side=side)) == pytest.approx(
        expected, abs=1e-5
    )


def test_dark_sums_by_hand() -> None:
    true = labs([(5, 0, 0), (14.9, 6, 0), (14.9, 9, 0), (15, 0, 0), (60, 0, 0)])
    found = labs([(5, 12, 16), (14.9, 6, 8), (14.9, 30, 0), (15, 40, 0), (60, 40, 0)])
    dark = {name: value.tolist() for name, value in metrics.dark_sums(found, true, metrics.DARK).items()}
    # C* is 20, 10 and 30. The first is false; the second is under 15; the third's truth has colour itself.
    assert dark == {"pixels": [3], "error": [20 + 8 + 21], "chroma": [20 + 10 + 30], "false_color": [1]}
    dim = metrics.dark_sums(found, true, metrics.DIM)
    assert (dim["pixels"].tolist(), dim["error"].tolist(), dim["chroma"].tolist()) == ([1], [40], [40])


def test_chroma_by_luma_counts_every_pixel_once() -> None:
    counts = metrics.chroma_by_luma(labs([(0, 0, 0), (100, 0, 0), (52, 9, 0), (53, 0, 9), (50, 500, 0)]))
    assert counts.sum() == 5
    assert (counts[0, 0], counts[-1, 0], counts[10, 2], counts[10, -1]) == (1, 1, 2, 1)


def test_diversity_is_the_mean_over_all_pairs() -> None:
    samples = np.stack([labs([(50, 0, 0)]), labs([(50, 3, 0)]), labs([(50, 0, 4)])])
    assert metrics.diversity(samples) == pytest.approx((3 + 4 + 5) / 3)
    assert metrics.diversity(np.stack([samples[0]] * 4)) == pytest.approx(0)


def test_perceptual_distance_by_hand() -> None:
    one = {"a": torch.tensor([[[[3.0, 0.0]], [[0.0, 5.0]]]]), "b": torch.tensor([[[[1.0]], [[0.0]]]])}
    other = {"a": torch.tensor([[[[9.0, 2.0]], [[0.0, 0.0]]]]), "b": torch.tensor([[[[1.0]], [[1.0]]]])}
    # Layer a: the same direction at one place, right angles at the other (0 and 2). Layer b: 45 degrees.
    assert metrics.perceptual_distance(one, other) == pytest.approx(1 + 2 - 2**0.5)
    assert metrics.perceptual_distance(one, one) == pytest.approx(0)


def test_perceptual_distance_grows_as_colour_is_lost() -> None:
    vgg, true = VGG16.load(), photos(3).repeat(2, axis=1).repeat(2, axis=2)
    gray = true.mean(axis=-1, keepdims=True)
    features = metrics.vgg_features(vgg, true)
    found = [
        metrics.perceptual_distance(metrics.vgg_features(vgg, gray + strength * (true - gray)), features)
        for strength in (1.0, 0.5, 0.0)
    ]
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert (found[0] < found[1]).all()
    assert (found[1] < found[2]).all()
    assert metrics.frechet_features(features).shape == (2, 256)


def test_frechet_distance_between_shifted_and_stretched_sets_has_a_closed_form() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    mean, spread = x.mean(axis=0), x.std(axis=0, ddof=1)
    assert metrics.frechet_distance(Moments(x), Moments(x + np.array([3, 0, 4]))) == pytest.approx(25)
    # Stretched about its mean, S2 = 4 S1, and tr(S1 + 4 S1 - 2 * 2 S1) = tr(S1).
    stretched = mean + 2 * (x - mean)
    assert metrics.frechet_distance(Moments(x), Moments(stretched)) == pytest.approx((spread**2).sum())
    assert metrics.frechet_distance(Moments(x), Moments(x)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_agrees_with_scipys_square_root() -> None:
    random = np.random.default_rng(1)
    x, y = (random.normal(size=(40, 5)) @ random.normal(size=(5, 5)) for _ in range(2))
    s1, s2 = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(
        s1 + s2 - 2 * np.real(scipy.linalg.sqrtm(s1 @ s2))
    )
    assert metrics.frechet_distance(Moments(x), Moments(y)) == pytest.approx(expected)


def test_moments_without_a_part_are_those_of_the_rest() -> None:
    x = np.random.default_rng(2).normal(size=(30, 4))
    rest = Moments(x).without(Moments(x[::3]))
    expected = np.delete(x, np.s_[::3], axis=0)
    mean, covariance = rest.mean_and_covariance()
    assert mean == pytest.approx(expected.mean(axis=0))
    assert covariance == pytest.approx(np.cov(expected.T))


@pytest.fixture
def fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for torch-fidelity, whose features are the mean levels times a weight."""

    class Extractor:
        def __init__(self, name: str, features: list[str], feature_extractor_weights_path: Any) -> None:
            self.weight = torch.load(feature_extractor_weights_path, weights_only=True)["weight"]

        def __call__(self, levels: torch.Tensor) -> tuple[torch.Tensor]:
            assert levels.dtype == torch.uint8
            return (levels.float().mean(dim=(2, 3)) * self.weight,)

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


def save(path: Path, content: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that passes for the official weights."""
    buffer = BytesIO()
    torch.save(content, buffer)
    path.write_bytes(buffer.getvalue())
    monkeypatch.setattr(metrics, "INCEPTION_SHA256", hashlib.sha256(buffer.getvalue()).hexdigest()[:8])
    return path


@pytest.mark.usefixtures("fidelity")
def test_inception_gets_levels_and_the_weights_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(tmp_path / "inception.pth", {"weight": torch.tensor(2.0)}, monkeypatch)
    features = metrics.load_inception(file)(flat(1, 0, 0.2))
    assert features == pytest.approx(np.array([[510.0, 0.0, 102.0]]))


@pytest.mark.usefixtures("fidelity")
def test_other_weights_are_not_called_fid(tmp_path: Path) -> None:
    with pytest.raises(PhotochromError, match=r"there\.pth cannot be read: No such file"):
        metrics.load_inception(tmp_path / "not_there.pth")
    (tmp_path / "other.pth").write_bytes(b"something else")
    with pytest.raises(PhotochromError, match=r"other\.pth is not torch-fidelity's"):
        metrics.load_inception(tmp_path / "other.pth")


def test_without_torch_fidelity_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(PhotochromError, match=r"pip install 'photochrom\[fid\]'"):
        metrics.load_inception(Path("weights.pth"))
