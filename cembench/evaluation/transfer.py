"""Transfer matrix: the kept adversarial images of each run, shown to all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from cembench.attacks.verdict import CheckedModel, verify
from cembench.evaluation.artifacts import SavedImages
from cembench.evaluation.context import EvaluationContext, prepare
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record.files import load_record, load_table
from cembench.evaluation.statistics import wilson
from cembench.models.source import ModelSource
from cembench.util.errors import CembenchError
from cembench.util.files import sha256
from cembench.util.files.layout import RunLayout
from cembench.util.frozen import exact, frozen

ANY = "any"  # the source of rows that have all sources together
USUAL = 0.01  # share of survivors on which images of another network may succeed


@dataclass(frozen=True)
class Kept:
    """A run whose adversarial images were kept.

    Attributes:
        path: its record.
        record: the same, read.
        context: its network and the attacked images.
    """

    path: Path
    record: Record
    context: EvaluationContext

    @property
    def group(self) -> tuple[str, str]:
        """What runs must share so that images of one mean something for another."""
        return self.record.fingerprint, str(self.record.threat)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Its table of verdicts."""
        return load_table(self.path)

    @property
    def right(self) -> Tensor:
        """Which images its network classifies correctly, N booleans."""
        return torch.tensor((self.table["clean_pred"] == self.table["label"]).tolist())

    @property
    def standing(self) -> Tensor:
        """Which images survive its own attacks under the threat model of the record, N booleans."""
        ours = [f"{attack.title}_broken" for attack in self.context.protocol.attacks]
        broken = self.table[[column for column in ours if column in self.table]]
        return self.right & ~torch.tensor(broken.any(axis=1).tolist())

    def images(self) -> list[tuple[Tensor, Tensor]]:
        """Return the places of images in the ball and what each attack made of them, by attack."""
        context, found = self.context, []
        for attack in context.protocol.attacks:
            shape = context.split.shape
            saved = SavedImages(self.path, attack.title, context.rows, shape)
            found.append(saved.between(0, len(context.split), outside=False))
        return found

    def fooled_by(self, source: Kept) -> tuple[Tensor, Tensor]:
        """Return of which images the source has any, and which of these fool this network."""
        split, threat = self.context.split, self.record.threat
        has, fooled = (torch.zeros(len(split), dtype=torch.bool) for _ in range(2))
        model = CheckedModel(self.context.model, len(split.classes)).eval()
        x, y, device = split.pixels(), split.labels, split.labels.device
        with frozen(model), exact():
            for places, images in source.images():
                for rows, proposed in zip(places.split(256), images.split(256), strict=True):
                    at, made = rows.to(device), proposed.to(device)
                    verdict = verify(model, x[at], made, y[at], threat.ball)
                    has[rows] = True
                    fooled[rows] |= verdict.success.cpu()
        return has, fooled


def kept_of(
    paths: Iterable[Path], protocol: str, device: torch.device, data_root: str | None = None
) -> list[Kept]:
    """Return the newest record with kept adversarial images of each run.

    Args:
        paths: run folders, or folders of them.
        protocol: the name of the records, with `*` for any letters.
        device: where networks compute.
        data_root: the folder of the data, if it is not the one of training.

    Raises:
        CembenchError: when there are fewer than two, or one does not fit its files.
    """
    newest: dict[Path, tuple[Path, Record]] = {}
    for file in (file for path in paths for file in RunLayout.records_below(path)):
        if not Path(file.stem).match(protocol) or not RunLayout.adversarial(file).is_dir():
            continue
        record, run = load_record(file), RunLayout.of_record(file).folder
        if record.error is None and (run not in newest or record.created > newest[run][1].created):
            newest[run] = file, record
    if len(newest) < 2:
        raise CembenchError(
            "fewer than two runs have kept adversarial images: `cembench eval RUNS "
            "--save-adversarial`"
        )
    return [Kept(*one, _context(*one, device, data_root)) for one in newest.values()]


def _context(
    path: Path, record: Record, device: torch.device, data_root: str | None
) -> EvaluationContext:
    folder = RunLayout.of_record(path).folder
    for file in sorted(folder.glob("*.safetensors")):
        if sha256(file) == record.checkpoint_sha256:
            wanted = Protocol.parse(record.protocol)
            unused = dict.fromkeys(("samples", "counterfactuals", "corruptions"))
            attacks = wanted.model_copy(update=unused)
            return prepare(ModelSource.at(file), attacks, device, data_root=data_root)
    raise CembenchError(f"{path}: its checkpoint is not in {folder}; evaluate it again")


def transfer_table(runs: list[Kept]) -> pd.DataFrame:
    """Return a row for each ordered pair of runs on the same images and threat model.

    `images` are those that the target classifies correctly and the source has adversarial images
    of, `fooled` how many of these succeed; `survivors` the images among them that survive the
    target's own attacks, `wins` on how many of these the source's succeed. A row `any` has all
    sources together: there, `transfer_wins` fails where wins are above 1 % of survivors beyond
    chance (95 % Wilson interval), since a network's own gradients should find what others' do.
    Runs of the same name are told apart by their folders.

    Raises:
        CembenchError: when no two runs are on the same images and threat model.
    """
    rows, names = [], _names(runs)
    for target in runs:
        right, standing = target.right, target.standing
        seen, fell = right & False, right & False
        others = [one for one in runs if one is not target and one.group == target.group]
        for source in others:
            has, fooled = target.fooled_by(source)
            ends = names[target.path], names[source.path]
            rows.append(_row(*ends, right & has, fooled, standing))
            seen, fell = seen | has, fell | fooled
        if others:
            row = _row(names[target.path], ANY, right & seen, fell, standing)
            low = wilson(row["wins"], row["survivors"])[0] if row["survivors"] else 0.0
            rows.append({**row, "transfer_wins": "fail" if low > USUAL else "pass"})
    if not rows:
        raise CembenchError("no two runs are on the same images and threat model")
    return pd.DataFrame(rows)


def _names(runs: list[Kept]) -> dict[Path, str]:
    """Return what each run is called: by its folder where its name is taken."""
    taken = Counter([ANY, *(one.record.run for one in runs)])
    folders = {one.path: str(RunLayout.of_record(one.path).folder) for one in runs}
    return {
        one.path: folders[one.path] if taken[one.record.run] > 1 else one.record.run for one in runs
    }


def _row(
    target: str, source: str, given: Tensor, fooled: Tensor, standing: Tensor
) -> dict[str, Any]:
    left = given & standing
    return {
        "target": target,
        "source": source,
        "images": int(given.sum()),
        "fooled": int((given & fooled).sum()),
        "survivors": int(left.sum()),
        "wins": int((left & fooled).sum()),
        "transfer_wins": "",
    }
