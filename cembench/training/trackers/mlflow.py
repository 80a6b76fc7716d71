"""MLflow tracker, with the store that `MLFLOW_TRACKING_URI` or `uri` names: server or database."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from cembench.training.trackers import RunInfo, Tracker, TrackerRun

LAST = "cost/seconds"  # last tag of an epoch
TIMEOUTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MLflow(Tracker):
    """MLflow: one run of an experiment.

    Attributes:
        experiment: MLflow experiment that lists the run.
        uri: store; MLflow's default unless given.
    """

    name: ClassVar[str] = "mlflow"
    package: ClassVar[str | None] = "mlflow"
    experiment: str = "cembench"
    uri: str | None = None

    def open(self, run: RunInfo) -> TrackerRun:
        """Begin a run, or resume the one that `RUN/mlflow.id` names."""
        for key, value in TIMEOUTS.items():  # its defaults would block training for minutes
            os.environ.setdefault(key, value)
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.uri)
        run_id = run.id_of(self.name, lambda: self._created(client, run))
        client.update_run(run_id, status="RUNNING")
        return Stored(client, run_id)

    def _created(self, client: Any, run: RunInfo) -> str:
        found = client.get_experiment_by_name(self.experiment)
        where = found.experiment_id if found else client.create_experiment(self.experiment)
        run_id = str(client.create_run(where, run_name=run.name).info.run_id)
        client.log_dict(run_id, run.config, "config.yaml")
        return run_id


class Stored(TrackerRun):
    """Run in the store; epochs are its steps."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id
        steps = [metric.step for metric in client.get_metric_history(run_id, LAST)]
        self.known = max(steps, default=0)

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Store an epoch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(tag, value, now, epoch) for tag, value in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def close(self, failed: bool) -> None:
        """Record the end of the run."""
        self.client.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")
