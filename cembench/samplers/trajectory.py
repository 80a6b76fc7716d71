"""Trajectories of chains: image and readings of the sampler at every step, as a GIF or a strip."""

from __future__ import annotations

import io

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cembench.energy.ascent import Visit
from cembench.samplers.energy import EnergySampler
from cembench.util.display.cells import CELL, GAP, LINE, MARGIN, STEP, TOP
from cembench.util.display.image_grid import page, picture

CHAINS, COLUMNS = 10, 11


class Trace:
    """Record of the first chains of a batch, made by a hook of `ascend`.

    Attributes:
        images: N×C×H×W per step.
        readings: the sampler's `readings` per step: N values by name.
    """

    def __init__(self, sampler: EnergySampler) -> None:
        self.sampler = sampler
        self.images: list[Tensor] = []
        self.readings: list[dict[str, Tensor]] = []
        self.labels = torch.empty(0, dtype=torch.long)

    def follow(self, y: Tensor) -> Visit:
        """Return the hook for a batch of labels y."""
        self.labels = y[:CHAINS].cpu()

        def visit(step: int, rows: Tensor, x: Tensor, out: Tensor) -> None:
            self.images.append(x[:CHAINS].cpu())
            read = self.sampler.readings(out.float(), y)
            self.readings.append({name: value[:CHAINS].cpu() for name, value in read.items()})

        return visit

    def render(self, classes: list[str], suffix: str) -> bytes:
        """Return a `.gif` with one frame per step, or a `.png` with some steps side by side."""
        return self._gif(classes) if suffix == ".gif" else self._strip(classes)

    def _gif(self, classes: list[str]) -> bytes:
        frames = []
        for step, images in enumerate(self.images):
            read = self.readings[step].items()
            note = ", ".join(f"{name} {float(value.mean()):.2f}" for name, value in read)
            note = f"step {step}: {note}"
            panels = {"start": self.images[0], "now": images}
            sheet = page(panels, self.labels, classes)
            frame = Image.new("RGB", (max(sheet.width, 320), sheet.height + TOP), "white")
            frame.paste(sheet, (0, 0))
            ImageDraw.Draw(frame).text((4, sheet.height + 2), note, fill="black")
            frames.append(frame)
        stream = io.BytesIO()
        frames[0].save(stream, "gif", save_all=True, append_images=frames[1:], duration=120, loop=0)
        return stream.getvalue()

    def _strip(self, classes: list[str]) -> bytes:
        last = len(self.images) - 1
        steps = sorted({round(k * last / (COLUMNS - 1)) for k in range(COLUMNS)})
        width, height = STEP, CELL + 2 * LINE + GAP
        size = (MARGIN + len(steps) * width, TOP + len(self.labels) * height + TOP)
        sheet = Image.new("RGB", size, "white")
        pen = ImageDraw.Draw(sheet)
        for column, step in enumerate(steps):
            left = MARGIN + column * width
            pen.text((left, 2), f"step {step}", fill="black")
            for row in range(len(self.labels)):
                top = TOP + row * height
                sheet.paste(picture(self.images[step][row]), (left, top))
                for line, value in enumerate(self.readings[step].values()):
                    text = f"{float(value[row]):.2f}"
                    pen.text((left, top + CELL + line * LINE), text, fill="black")
        for row, label in enumerate(self.labels.tolist()):
            name = classes[label][:12] if label >= 0 else ""
            pen.text((4, TOP + row * height + CELL // 3), name, fill="black")
        note = f"below each image: {', then '.join(self.readings[0])}"
        pen.text((4, size[1] - TOP + 2), note, fill="black")
        stream = io.BytesIO()
        sheet.save(stream, "png")
        return stream.getvalue()
