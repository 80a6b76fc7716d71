"""Inspection of an entry by the keeper of a board: cheap checks first, attacks last.

Nothing of the entry is imported or unpickled. Its network is built only if its architecture is
known here, and its data are the keeper's own.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from cembench.data import DataSettings, datasets
from cembench.data.loading import load_test, load_training
from cembench.data.roots import named_alone, remember_root, require_named
from cembench.evaluation.context import EvaluationContext, measured_of, prepare
from cembench.evaluation.extractors.features import shared_reader
from cembench.evaluation.protocol import load_protocol
from cembench.interop.submission.board import publish, require_new
from cembench.interop.submission.checks import Checks, Refused
from cembench.interop.submission.claim import Claim, read_claim
from cembench.interop.submission.counts import check_images_of, check_table
from cembench.interop.submission.reattack import RULE as ATTACKED
from cembench.interop.submission.reattack import attack_again
from cembench.interop.submission.received import receive
from cembench.interop.submission.recount import RULE as RECOUNTED
from cembench.interop.submission.recount import recount
from cembench.interop.submission.redraw import draw_again
from cembench.interop.submission.verdict import Verdict
from cembench.models.metadata import CheckpointMetadata
from cembench.models.source import ModelSource
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError
from cembench.util.provenance import environment
from cembench.util.shared import sharing
from cembench.util.shipped import shipped

SHARE = 0.25
MOST = 2  # GiB of an entry


def accept(
    entry: Path,
    board: Path | None = None,
    *,
    protocols: Sequence[str] = (),
    share: float = SHARE,
    seed: int | None = None,
    device: str = "cpu",
    data_root: str | None = None,
    inception_weights: Path | None = None,
    most: float = MOST,
    only_recounted: bool = False,
) -> Verdict:
    """Inspect an entry, and copy it to a board if it is accepted.

    Args:
        entry: its folder. It is not written to.
        board: a folder of entries, in which it must be new.
        protocols: names or files of those under which entries may be measured; those that come
            with cembench unless given.
        share: of the images that are attacked again, and of the samples that are drawn again.
        seed: decides which, and how they are attacked; a random one unless given.
        device: where to compute.
        data_root: the folder of the keeper's data, where the data set does not know it.
        inception_weights: weights for the extractors inception and dinov2.
        most: GiB that an entry may have.
        only_recounted: refuse entries whose network cannot be run here.

    Raises:
        CembenchError: when it cannot be inspected, for a reason that is not the entry's.
    """
    allowed = [load_protocol(name) for name in protocols or shipped("protocol")]
    verdict = Verdict(entry.name)
    seed = secrets.randbelow(2**31) if seed is None else seed
    with TemporaryDirectory() as temporary, named_alone(), sharing():
        copy = Path(temporary).resolve() / "entry"
        verdict.checks.hidden = str(copy)
        inspection = _Inspection(verdict, share, seed, device, data_root, inception_weights)
        try:
            facts = receive(entry, copy, int(most * 2**30), verdict.checks)
            verdict.title, verdict.facts = facts.name, facts
            claim = read_claim(copy, allowed, verdict.checks)
            if only_recounted:
                _require_network(claim, verdict.checks)
            require_new(claim, facts, board, verdict.checks)
            inspection.inspect(claim)
            verdict.outcome = "accepted, not re-run" if claim.why_not else "accepted"
            if board is not None:
                with verdict.checks.stage("Board"):
                    publish(claim, facts, board, verdict)
        except Refused:
            verdict.outcome = "refused"
    return verdict


class _Inspection:
    """The inspection of one claim."""

    def __init__(
        self,
        verdict: Verdict,
        share: float,
        seed: int,
        device: str,
        data_root: str | None,
        inception_weights: Path | None,
    ) -> None:
        self.verdict, self.checks = verdict, verdict.checks
        self.share, self.seed = share, seed
        self.device = torch.device(pick_device(device))
        self.data_root, self.weights = data_root, inception_weights
        verdict.how.append(_versions(self.device))

    def inspect(self, claim: Claim) -> None:
        """Compare a claim with the keeper's data, and with its network if that is known here."""
        check_table(claim, self.checks)
        if claim.why_not or claim.metadata is None:
            self._without_network(claim)
            return
        data = self._data(claim.metadata.data, claim)
        check_images_of(claim, load_test(data), self.checks)
        metadata = claim.metadata.model_copy(update={"data": data})
        context = self._context(claim, metadata)
        self.verdict.how.append(RECOUNTED)
        recount(claim, context, self.checks)
        _note_sanity(claim, self.checks)
        if claim.record.kind == "classifier" and claim.protocol.attacks:
            count = attack_again(claim, context, self.share, self.seed, self.checks)
            self.verdict.attacked = count
            self.verdict.how.append(ATTACKED)
        draw_again(claim, context, self.share, self.seed, self.checks)
        self.verdict.how.append(
            f"Seed {self.seed} chose {self.share:.0%} of the images to attack again, "
            f"{self.verdict.attacked or 0} in all, and of the samples to draw again."
        )

    def _without_network(self, claim: Claim) -> None:
        """Check what can be checked of the record alone, with the test images if they are here."""
        reason = claim.why_not
        with self.checks.stage("Data"):
            self.checks.note("network", "run again", f"not re-run: {reason}")
        try:
            stated = claim.metadata.data if claim.metadata else datasets.parse(claim.record.data)
            whole = load_test(self._data(stated, claim))
        except CembenchError as error:
            self.checks.note("test images", "those of the keeper", f"not compared: {error}")
            return
        check_images_of(claim, whole, self.checks)

    def _data(self, stated: DataSettings, claim: Claim) -> DataSettings:
        """Return the data set of an entry where the keeper has it.

        Raises:
            Refused: for a folder that only the entry names.
        """
        with self.checks.stage("Data"):
            data = _moved(stated, self.data_root)
            with self.checks.trying("folders of the data", "none that the entry alone names"):
                require_named(data, claim.checkpoint)
                title = data.title
                self.checks.equal("data set", title, claim.record.dataset)
        return data

    def _context(self, claim: Claim, metadata: CheckpointMetadata) -> EvaluationContext:
        """Return the context of the measurement.

        Raises:
            Refused: when network, data and protocol do not fit together.
            CembenchError: when the keeper lacks training images, or the weights of an extractor.
        """
        source = replace(ModelSource.at(claim.checkpoint), metadata=metadata)
        protocol = measured_of(claim.protocol, metadata, claim.checkpoint)
        training = None
        if protocol.samples is not None:
            shared_reader(protocol.samples.extractor, self.device, self.weights)
            training = load_training(metadata.data, metadata.held_out).fingerprint
        with self.checks.stage("Network"):
            if training is not None:
                self.checks.equal("fingerprint of training images", training, metadata.fingerprint)
            with self.checks.trying("network, data and protocol", "fit together"):
                weights = None if protocol.samples is None else self.weights
                context = prepare(source, claim.protocol, self.device, inception_weights=weights)
                self.checks.equal("inputs", context.header.inputs, claim.record.inputs)
                self.checks.require("network", bool(context.model), "can be built", "built")
        return context


def _moved(data: DataSettings, root: str | None) -> DataSettings:
    """Return a data set under the keeper's root: the given one, or else its customary one.

    What is excluded from settings, such as where decoded images are kept, is for the keeper to say.
    """
    fields = type(data).model_fields
    own = {name for name, field in fields.items() if field.exclude}
    if root is None and "root" in fields and not fields["root"].is_required():
        own |= {"root"}
    data = data.model_copy(update={name: fields[name].get_default() for name in own})
    if root is not None:
        data = data.moved(root)
        remember_root(data.members[0])
    return data


def _require_network(claim: Claim, checks: Checks) -> None:
    with checks.stage("Network"):
        reason = claim.why_not or "it can"
        checks.require("network", not claim.why_not, "one that can be run here", reason)


def _note_sanity(claim: Claim, checks: Checks) -> None:
    record = claim.record
    if record.sanity_failed:
        checks.note("checks for gradient masking", "passed", ", ".join(record.sanity_failed))
    if record.unchecked:
        checks.note("checks for gradient masking", "in the protocol", "none")
    customary = claim.metadata.data.threat if claim.metadata else record.threat
    if customary != record.threat:
        checks.note("threat model", f"{customary}, which is customary", record.threat)


def _versions(device: torch.device) -> str:
    found = environment(device)
    version = f"cembench {found['cembench']} (source {found['source']})"
    return f"{version}, torch {found['torch']}, {found['device']}."
