"""Board: a folder of accepted entries, each with a mark that says what was inspected."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from safetensors.torch import load

from cembench.evaluation.record.acceptance import ACCEPTED, Acceptance
from cembench.interop.submission.card import write_card
from cembench.interop.submission.checks import Checks
from cembench.interop.submission.claim import Claim
from cembench.interop.submission.entry import EntryFacts
from cembench.interop.submission.page import page_of
from cembench.interop.submission.pictures import write_pictures
from cembench.interop.submission.verdict import Verdict
from cembench.models.checkpoint import weights_digest
from cembench.util.errors import CembenchError
from cembench.util.files import read_bytes, sha256, write_bytes, write_text
from cembench.util.files.folders import new_folder
from cembench.util.files.layout import RunLayout
from cembench.util.files.names import require_distinct, shown
from cembench.util.version import __version__

PAGE = "accepted.md"


def require_new(claim: Claim, facts: EntryFacts, board: Path | None, checks: Checks) -> None:
    """Compare an entry with those on the board.

    Raises:
        Refused: when its name is taken, or another entry has the same weights.
    """
    record = claim.record
    with checks.stage("Board"):
        if claim.why_not and claim.checkpoint.exists():
            with checks.trying("weights", "undamaged"):
                digest = weights_digest(load(read_bytes(claim.checkpoint)))
                checks.equal("digest of the weights", digest, record.weights_sha256)
        if board is None:
            return
        taken = (board / facts.name).exists()
        checks.require("name", not taken, "a new one", "taken" if taken else facts.name)
        with checks.trying("name", "unlike all others, by more than case or accents"):
            for other in board.iterdir() if board.is_dir() else ():
                require_distinct((other.name, facts.name))
        same = [path for path, weights in _known(board).items() if weights == record.weights_sha256]
        found = shown(str(same[0].relative_to(board))) if same else "none"
        checks.require("entry with the same weights", not same, "none", found)


def _known(board: Path) -> dict[Path, str]:
    """Return the digest of the weights of each record on a board."""
    found = {}
    for path in RunLayout.records_below(board) if board.is_dir() else []:
        with suppress(CembenchError, ValueError, TypeError, KeyError, RecursionError):
            found[path] = str(json.loads(read_bytes(path))["weights_sha256"])
    return found


def publish(claim: Claim, facts: EntryFacts, board: Path, verdict: Verdict) -> None:
    """Copy an accepted entry to a board, with its mark and its page, whole or not at all.

    Raises:
        CembenchError: when the board cannot be written.
    """
    with new_folder(board / facts.name) as draft:
        if draft is None:
            raise CembenchError(f"{board / facts.name}: there is an entry by now")
        shutil.copytree(RunLayout.of_record(claim.path).folder, draft, dirs_exist_ok=True)
        write_card(draft, claim.record, facts)
        if not claim.why_not:
            write_pictures(claim, draft)
        write_bytes(draft / ACCEPTED, _mark(claim, facts, verdict).text())
        write_text(draft / PAGE, page_of(verdict))


def _mark(claim: Claim, facts: EntryFacts, verdict: Verdict) -> Acceptance:
    return Acceptance(
        name=facts.name,
        outcome="not re-run" if claim.why_not else "recounted",
        record_sha256=sha256(claim.path),
        attacked=verdict.attacked or 0,
        how=verdict.how,
        cembench=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
