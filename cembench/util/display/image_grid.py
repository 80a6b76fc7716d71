"""Image grids: one row per class and a panel per kind of image, or one row per kind of image."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cembench.util.display.cells import (
    CELL,
    COLUMNS,
    GAP,
    LETTER,
    MARGIN,
    ROW,
    SIDE,
    TEXT,
    TOP,
    row_height,
    row_margin,
)

UNNAMED = 8
CLASSES = 100  # that a picture shows at most


def grid(panels: dict[str, Tensor], y: Tensor, classes: list[str], columns: int = COLUMNS) -> bytes:
    """Return a PNG with panels of N images side by side, such as initial images and samples.

    It shows the first images of each class. Values are cut to [0, 1].

    Args:
        panels: N×C×H×W by title; floats in [0, 1] or bytes.
        y: the class of each image, N; with −1, the first ones are shown in rows without names.
        classes: their names.
        columns: images of a class at most.
    """
    stream = io.BytesIO()
    page(panels, y, classes, columns).save(stream, "png")
    return stream.getvalue()


def shown_rows(y: Tensor, columns: int = COLUMNS) -> Tensor:
    """Return which of many images a grid shows: the first ones of each of at most 100 classes."""
    if bool((y < 0).any()):
        return torch.arange(len(y))[: UNNAMED * columns]
    labels = y.unique()[:CLASSES]
    return torch.cat([(y == label).nonzero().squeeze(1)[:columns] for label in labels])


def page(
    panels: dict[str, Tensor], y: Tensor, classes: list[str], columns: int = COLUMNS
) -> Image.Image:
    """Return the picture of `grid`."""
    if bool((y < 0).any()):
        y = torch.arange(len(y)) // columns
        y, classes = y[y < UNNAMED], [""] * UNNAMED
        panels = {title: images[: len(y)] for title, images in panels.items()}
    labels = y.unique().tolist()
    drawn = [_panel(images, y, labels, columns) for images in panels.values()]
    width, height = drawn[0].size
    step = width + 8 * GAP
    sheet = Image.new("RGB", (MARGIN + len(drawn) * step, height + TOP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (title, panel) in enumerate(zip(panels, drawn, strict=True)):
        pen.text((MARGIN + number * step, 2), title[: max(8, width // 6)], fill="black")
        sheet.paste(panel, (MARGIN + number * step, TOP))
    for row, label in enumerate(labels):
        pen.text((4, TOP + row * (CELL + GAP) + CELL // 3), classes[label][:12], fill="black")
    return sheet


def strips(
    rows: Mapping[str, Tensor], captions: Mapping[str, Sequence[str]], columns: int = ROW
) -> bytes:
    """Return a PNG with one row for each kind of image, such as originals and counterfactuals.

    Image k of every row stands in the same column. After `columns` of them, the rows begin anew.

    Args:
        rows: N×C×H×W by title; floats in [0, 1] or bytes.
        captions: by title, a text of one or two lines for each image of a row.
        columns: images side by side.
    """
    count, side = len(next(iter(rows.values()))), _side(rows)
    left = row_margin(rows)
    heights = {title: row_height(side, _lines(captions.get(title, ()))) for title in rows}
    block = sum(heights.values()) + 3 * GAP
    size = left + min(columns, count) * (side + GAP), block * -(-count // columns)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for number in range(count):
        x, top = left + number % columns * (side + GAP), number // columns * block
        for title, images in rows.items():
            if number % columns == 0:
                pen.text((GAP, top + side // 3), title, fill="black")
            sheet.paste(picture(images[number], side), (x, top))
            texts = captions[title][number].split("\n") if title in captions else []
            for line, text in enumerate(texts):
                pen.text((x, top + side + line * TEXT), text[: side // LETTER], fill="black")
            top += heights[title]
    stream = io.BytesIO()
    sheet.save(stream, "png")
    return stream.getvalue()


def _side(rows: Mapping[str, Tensor]) -> int:
    """Return the side of a cell: that of the images, within limits."""
    return max(SIDE, min(2 * SIDE, max(images.shape[-1] for images in rows.values())))


def _lines(texts: Sequence[str]) -> int:
    return max((text.count("\n") + 1 for text in texts), default=0)


def picture(image: Tensor, side: int = CELL) -> Image.Image:
    """Return one C×H×W image, one or three channels, scaled to a cell."""
    values = image if image.dtype == torch.uint8 else (image.clamp(0, 1) * 255).round()
    array = values.to(torch.uint8).cpu().permute(1, 2, 0).squeeze(2).numpy()
    return Image.fromarray(array).convert("RGB").resize((side, side), Image.Resampling.NEAREST)


def _panel(images: Tensor, y: Tensor, labels: list[int], columns: int) -> Image.Image:
    columns = min(columns, max(int((y == label).sum()) for label in labels))
    panel = Image.new("RGB", (columns * (CELL + GAP), len(labels) * (CELL + GAP)), "white")
    for row, label in enumerate(labels):
        for column, image in enumerate(images[y == label][:columns]):
            panel.paste(picture(image), (column * (CELL + GAP), row * (CELL + GAP)))
    return panel
