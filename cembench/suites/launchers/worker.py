"""One experiment in a process of its own."""

from __future__ import annotations

import os
import traceback
from contextlib import redirect_stderr, redirect_stdout

from cembench.suites.launchers import Job, Outcome


def work(job: Job) -> Outcome:
    """Do an experiment, and write what it says to `log.txt` in its run folder."""
    os.environ.update(job.environment)
    try:
        os.chdir(job.place)
        job.folder.mkdir(parents=True, exist_ok=True)
        log = job.log.open("a", buffering=1)
    except OSError as error:
        hint = "every node must see the folders of suite and runs"
        return Outcome(f"{error.filename}: {error.strerror}; {hint}")
    with log, redirect_stdout(log), redirect_stderr(log):
        try:
            from cembench.suites.run import do

            outcome = do(job)
        except Exception as error:
            traceback.print_exc()
            known = isinstance(error, OSError) and str(error)
            outcome = Outcome(known or f"unexpected {error!r}; {job.log} shows where")
        print(outcome.failure or "done")
    return outcome
