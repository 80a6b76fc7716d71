"""Queue of a suite: a folder beside its runs, from which any number of workers take experiments.

`OUT/.queue/SUITE/suite.json` has all settings, so later edits of the suite file change nothing. The
folder beside it, named by a digest of them, has for each experiment its leases, and then
`NAME.done` or `NAME.failed`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from cembench.evaluation.protocol import Protocol
from cembench.suites.outcomes import Outcome
from cembench.suites.patience import is_there
from cembench.training.config import Experiment
from cembench.util.errors import blaming
from cembench.util.files import unwritable
from cembench.util.files.layout import RunLayout
from cembench.util.files.seal import open_sealed
from cembench.util.settings import Name, Settings

FOLDER = ".queue"
RETRIES = 5  # of an experiment whose process dies
DONE, FAILED = "done", "failed"


class Plan(Settings):
    """What a queue keeps of a suite.

    Attributes:
        session: a new one whenever a command stores the suite; deaths of earlier ones are forgiven.
        round: identifies the settings and the code; other ones begin with an empty folder.
        place: the working folder, which relative paths start from.
        protocol: the protocol.
        experiments: settings by name.
        needs: what some experiments start from.
        device: where an experiment runs.
        inception_weights: weights for the extractors inception and dinov2.
        plugins: modules that workers have to be given.
        max_failures: failures after which no more experiments are begun.
    """

    session: str
    round: Name
    place: str
    protocol: dict[str, Any]
    experiments: dict[Name, dict[str, Any]]
    needs: dict[Name, list[Name]]
    device: str
    inception_weights: str | None = None
    plugins: list[str] = []
    max_failures: int | None = None


class Look(NamedTuple):
    """What a look into the folder shows: outcomes that are new, and what workers have."""

    news: dict[str, Outcome]
    running: Collection[str]


class Count(NamedTuple):
    """How many experiments there are, how many went well and failed, and which are taken."""

    all: int
    done: int
    failed: int
    taken: list[str]

    @property
    def text(self) -> str:
        """The numbers in words."""
        left = self.all - self.done - self.failed - len(self.taken)
        failed = f"{self.failed} failed, " * bool(self.failed)
        return f"{self.done} of {self.all} experiments done, {failed}{len(self.taken)} begun, " + (
            f"{left} left"
        )


class Queue:
    """A suite that is stored beside its runs.

    Attributes:
        out: the folder of runs.
        name: of the suite.
        plan: what is stored.
        folder: of leases and outcomes.
    """

    def __init__(self, out: Path, name: str, plan: Plan) -> None:
        self.out, self.name, self.plan = out, name, plan
        self.folder = place_of(out, name) / plan.round
        self._seen: set[str] = set()

    @classmethod
    def read(cls, out: Path, name: str) -> Queue:
        """Read a queue.

        Raises:
            CembenchError: when there is none, or it is damaged.
        """
        file = place_of(out, name) / "suite.json"
        with open_sealed(file) as content, blaming(file):
            values = json.load(content)
            values.pop("seal", None)
            return cls(out, name, Plan.parse(values))

    @property
    def names(self) -> list[str]:
        """The names of the experiments, in their order."""
        return list(self.plan.experiments)

    @cached_property
    def protocol(self) -> Protocol:
        """The protocol."""
        return Protocol.parse(self.plan.protocol)

    @property
    def weights(self) -> Path | None:
        """Weights for the extractors inception and dinov2."""
        given = self.plan.inception_weights
        return None if given is None else Path(given)

    def experiment(self, name: str) -> Experiment:
        """Return the settings of an experiment."""
        return Experiment.parse(self.plan.experiments[name])

    def needs(self, name: str) -> list[str]:
        """Return the names of the experiments that one starts from."""
        return self.plan.needs.get(name, [])

    def layout(self, name: str) -> RunLayout:
        """Return the files of an experiment."""
        return RunLayout(self.out / name)

    @property
    def exists(self) -> bool:
        """Whether this is what is stored, and its store is there."""
        return is_there(self.folder)

    @property
    def stopped(self) -> bool:
        """Whether no more experiments are begun, since too many failed."""
        return self.plan.max_failures is not None and self._stop.exists()

    @property
    def _stop(self) -> Path:
        return self.folder / "stop"

    def outcome(self, name: str) -> Outcome | None:
        """Return how an experiment ended; None before that.

        Raises:
            OSError: when the store cannot be read.
        """
        if (self.folder / f"{name}.{DONE}").exists():
            return Outcome()
        try:
            found = Outcome(**json.loads((self.folder / f"{name}.{FAILED}").read_text()))
        except (FileNotFoundError, ValueError, TypeError, RecursionError):  # damaged: do it again
            return None
        return found if isinstance(found.failure, str) else None

    def finish(self, name: str, outcome: Outcome) -> None:
        """Store how an experiment ended.

        Raises:
            CembenchError: when that cannot be written.
            OSError: when the store is away.
        """
        self.folder.stat()  # a file must not be written where the store is away
        kind = DONE if outcome.failure is None else FAILED
        file = self.folder / f"{name}.{kind}"
        try:  # half a file, which a kill may leave, is no outcome
            file.write_text(json.dumps(outcome._asdict()))
        except OSError as error:
            raise unwritable(file, error) from error
        most = self.plan.max_failures
        if kind == FAILED and most is not None and len(self.failures) >= most:
            self._stop.touch()

    @property
    def failures(self) -> dict[str, str]:
        """Why experiments failed, by name."""
        kinds = kinds_in(self.folder)
        found = {name: self.outcome(name) for name, kind in kinds if kind == FAILED}
        return {name: one.failure for name, one in found.items() if one and one.failure}

    def look(self) -> Look:
        """Return what is new since the last look, and what workers have or had when they died.

        Raises:
            OSError: when the store cannot be read.
        """
        kinds = kinds_in(self.folder)
        ended = {name for name, kind in kinds if kind in (DONE, FAILED)} - self._seen
        found = {name: self.outcome(name) for name in self.names if name in ended}
        news = {name: outcome for name, outcome in found.items() if outcome is not None}
        self._seen |= news.keys()
        taken = {name for name, kind in kinds if kind.isdigit()} & self.plan.experiments.keys()
        return Look(news, taken - self._seen)

    def count(self) -> Count:
        """Return how many experiments are over, failed, or are held by workers."""
        kinds = [pair for pair in kinds_in(self.folder) if pair[0] in self.plan.experiments]
        by_kind = {kind: {n for n, k in kinds if k == kind} for kind in (DONE, FAILED)}
        over = by_kind[DONE] | by_kind[FAILED]
        taken = {name for name, kind in kinds if kind.isdigit()} - over
        return Count(len(self.names), len(by_kind[DONE]), len(by_kind[FAILED]), sorted(taken))

    def remove(self) -> None:
        """Remove the queue; the runs stay."""
        shutil.rmtree(place_of(self.out, self.name), ignore_errors=True)
        with suppress(OSError):  # of other suites
            (self.out / FOLDER).rmdir()


def kinds_in(folder: Path) -> list[tuple[str, str]]:
    """Return the names and kinds of the files in a queue: numbers of leases, or outcomes."""
    with os.scandir(folder) as entries:
        parts = [entry.name.rpartition(".") for entry in entries]
    return [(name, kind) for name, _, kind in parts]


def place_of(out: Path, name: str) -> Path:
    """Return the folder of the queue of a suite."""
    return out / FOLDER / name


def queues(out: Path) -> list[str]:
    """Return the names of the suites that have a queue beside their runs, sorted."""
    return sorted(file.parent.name for file in out.glob(f"{FOLDER}/*/suite.json"))
