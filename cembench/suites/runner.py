"""Runner: runs the experiments of a queue in this process, or in several of their own."""

from __future__ import annotations

from pathlib import Path

from cembench.suites.experiment import run_experiment
from cembench.suites.outcomes import Outcome
from cembench.suites.patience import is_away
from cembench.suites.queue import Queue
from cembench.suites.several import run_in_processes
from cembench.util.devices import pick_device
from cembench.util.errors import CembenchError
from cembench.util.files.locks import Busy
from cembench.util.processes.distributed import world
from cembench.util.processes.process_group import process_group
from cembench.util.shared import sharing


class Runner:
    """Runner of one worker.

    Args:
        queue: the queue.
        device: where an experiment runs.
    """

    def __init__(self, queue: Queue, device: str) -> None:
        self.queue, self.device = queue, device

    def __call__(self, name: str, diverged: str | None = None) -> Outcome:
        """Run an experiment, or record that the one it starts from diverged.

        Raises:
            CembenchError: saying why it failed.
        """
        count = self.queue.experiment(name).processes
        if count > 1 and diverged is None:
            return run_in_processes(self.queue, name, self.device, count)
        base = None if diverged is None else self.queue.out / diverged
        return self._run(name, pick_device("auto" if diverged else self.device), base)

    def share(self, name: str) -> None:
        """Run an experiment as one of the processes of torchrun; the first stores its outcome.

        What may go well the next time has no outcome.

        Raises:
            CembenchError: as above.
        """
        with process_group(self.device) as own, sharing():
            try:
                outcome = self._run(name, own, None)
            except CembenchError as error:
                if isinstance(error, Busy) or is_away(error, self.queue.out):
                    raise
                outcome = Outcome(str(error))
            if world().first:
                self.queue.finish(name, outcome)

    def _run(self, name: str, device: str, failed: Path | None) -> Outcome:
        queue = self.queue
        folder, weights = queue.layout(name).folder, queue.weights
        return run_experiment(
            queue.experiment(name), folder, queue.protocol, device, weights, failed
        )
