"""A labelled picture of samples beside the starts of their chains."""

from __future__ import annotations

import io

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cembench.sampling import Samples

CELL, GAP, MARGIN = 32, 2, 80


def grid(samples: Samples, classes: list[str], columns: int = 8) -> bytes:
    """Return a PNG: a row a class, starts on the left, samples on the right.

    The first samples of each class are shown, none is chosen. Values are cut to [0, 1].
    """
    labels = samples.labels.unique().tolist()
    panels = [
        _panel(part, samples.labels, labels, columns) for part in (samples.starts, samples.images)
    ]
    width, height = panels[0].size
    page = Image.new("RGB", (MARGIN + 2 * width + 8 * GAP, height + 16), "white")
    pen = ImageDraw.Draw(page)
    for title, panel, left in zip(
        ("starts", "samples"), panels, (MARGIN, MARGIN + width + 8 * GAP), strict=True
    ):
        pen.text((left, 2), title, fill="black")
        page.paste(panel, (left, 16))
    for row, label in enumerate(labels):
        pen.text((4, 16 + row * (CELL + GAP) + CELL // 3), classes[label][:12], fill="black")
    stream = io.BytesIO()
    page.save(stream, "png")
    return stream.getvalue()


def _panel(images: Tensor, y: Tensor, labels: list[int], columns: int) -> Image.Image:
    most = max(int((y == label).sum()) for label in labels)
    columns = min(columns, most)
    page = Image.new("RGB", (columns * (CELL + GAP), len(labels) * (CELL + GAP)), "white")
    for row, label in enumerate(labels):
        for column, image in enumerate(images[y == label][:columns]):
            page.paste(_picture(image), (column * (CELL + GAP), row * (CELL + GAP)))
    return page


def _picture(image: Tensor) -> Image.Image:
    values = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).squeeze(2)
    picture = Image.fromarray(values.numpy()).convert("RGB")
    return picture.resize((CELL, CELL), Image.Resampling.NEAREST)
