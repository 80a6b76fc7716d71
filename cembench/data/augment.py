"""Augmentation of training images: random crops, mirror, AutoAugment, cutout; on their device."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from cembench.util.lazy import lazy_imports
from cembench.util.rng import fork_rng, integers, seed_torch, uniform

with lazy_imports():  # of half a second
    from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy

SHAPES = 4 / 3  # random-resized crops are at most that much wider than high, or higher than wide
TRIES = 10  # of a box that fits


def augment(
    images: Tensor, crop: int, flip: bool, generator: torch.Generator, area: float = 0
) -> Tensor:
    """Pad each image with zeros, crop it at random to its size, and mirror half of them.

    Args:
        images: N×C×H×W, any type.
        crop: pixels of padding on each side; 0 leaves the position.
        flip: whether to mirror left to right at random.
        generator: the source of randomness, on the device of the images.
        area: the smallest share of an image that a random-resized crop takes; 0 for no such crops.
    """
    if crop:
        images = _random_crop(images, crop, generator)
    if area:
        images = resized_crop(images, random_boxes(images, area, generator))
    if flip:
        coin = uniform((len(images), 1, 1, 1), generator) < 0.5
        images = torch.where(coin, images.flip(-1), images)
    return images


def _random_crop(images: Tensor, crop: int, generator: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    shift = integers(2 * crop + 1, (count, 2, 1), generator)
    rows = shift[:, 0] + torch.arange(height, device=images.device)
    columns = shift[:, 1] + torch.arange(width, device=images.device)
    batch = torch.arange(count, device=images.device)[:, None, None]
    padded = pad(images, (crop,) * 4).permute(0, 2, 3, 1)
    return padded[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def random_boxes(images: Tensor, area: float, generator: torch.Generator) -> Tensor:
    """Return boxes as torchvision's RandomResizedCrop draws them: area and shape are uniform.

    The shape is uniform in its logarithm. Where no box fits in ten tries, which is rare unless
    images are long, it is the largest of an allowed shape.

    Args:
        images: N×C×H×W.
        area: the smallest share of an image that a box covers; the largest is 1.
        generator: the source of randomness, on the device of the images.

    Returns:
        Top, left, height and width in pixels, int64, N×4.
    """
    count, _, height, width = images.shape
    share, shape = uniform((count, TRIES, 2), generator).unbind(-1)
    pixels = height * width * (area + (1 - area) * share)
    ratio = ((2 * shape - 1) * math.log(SHAPES)).exp()
    sides = torch.stack([(pixels / ratio).sqrt(), (pixels * ratio).sqrt()], -1).round().long()
    most = torch.tensor([height, width], device=sides.device)
    largest = torch.minimum(most, (most.flip(0) * SHAPES).round().long())
    fits = ((sides >= 1) & (sides <= most)).all(-1)
    first = sides[torch.arange(count, device=sides.device), fits.int().argmax(1)]
    box = torch.where(fits.any(1, keepdim=True), first, largest)
    corner = (uniform((count, 2), generator) * (most - box + 1)).long()
    return torch.cat([torch.minimum(corner, most - box), box], 1)


def resized_crop(images: Tensor, boxes: Tensor) -> Tensor:
    """Scale a box of each image to the size of the image, bilinear.

    A box is never larger than the image, so there is nothing to antialias.

    Args:
        images: N×C×H×W; bytes are rounded to bytes again.
        boxes: top, left, height and width, N×4.
    """
    top, left, height, width = boxes.float()[:, :, None].unbind(1)
    rows = _samples(top, height, images.shape[2])[:, :, None].expand(-1, -1, images.shape[3])
    columns = _samples(left, width, images.shape[3])[:, None, :].expand(-1, images.shape[2], -1)
    grid = torch.stack([columns, rows], -1)
    scaled = grid_sample(images.float(), grid, padding_mode="border", align_corners=True)
    return scaled if images.is_floating_point() else scaled.round().to(images.dtype)


def _samples(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Return where the pixels of one side of a crop lie in the image, −1 to 1, N×size."""
    place = (torch.arange(size, device=start.device) + 0.5) * (length / size) - 0.5
    place = start + torch.minimum(place.clamp(min=0), length - 1)  # nothing outside the box
    return 2 * place / max(1, size - 1) - 1


def autoaugmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Apply torchvision's AutoAugment with the policy for CIFAR-10 (arXiv 1805.09501).

    Args:
        images: uint8, N×C×H×W with one or three channels, where 255 is white.
        generator: seeds the choice for each image.
    """
    policy = AutoAugment(AutoAugmentPolicy.CIFAR10)
    seeds = integers(2**31 - 1, (len(images),), generator).tolist()
    with fork_rng([images.device.index] if images.is_cuda else []):
        return torch.stack([_seeded(policy, *one) for one in zip(images, seeds, strict=True)])


def _seeded(policy: AutoAugment, image: Tensor, seed: int) -> Tensor:
    seed_torch(seed)
    return policy(image)


def cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Set a square of each image to zero, which may lie partly outside (arXiv 1708.04552).

    Args:
        images: N×C×H×W, any type.
        side: of the square in pixels.
        generator: the source of randomness, on the device of the images.
    """
    count, _, height, width = images.shape
    inside = []
    for length in (height, width):
        middle = integers(length, (count, 1), generator)
        place = torch.arange(length, device=images.device)
        inside.append((place >= middle - side // 2) & (place < middle + (side + 1) // 2))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hole, 0)
