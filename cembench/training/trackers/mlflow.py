"""MLflow, in the store that `MLFLOW_TRACKING_URI` or `uri` names: a server, or a database."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from cembench.training.trackers import RunInfo, Tracker, TrackerRun

LAST = "cost/seconds"  # of the tags of an epoch
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MLflow(Tracker):
    """One run of an experiment.

    Attributes:
        experiment: where it is listed.
        uri: the store; MLflow's own choice unless given.
    """

    name: ClassVar[str] = "mlflow"
    package: ClassVar[str | None] = "mlflow"
    experiment: str = "cembench"
    uri: str | None = None

    def open(self, run: RunInfo) -> TrackerRun:
        """Begin a run, or go on with the one that `RUN/mlflow.id` names."""
        for key, value in PATIENCE.items():  # its own would hold training up for minutes
            os.environ.setdefault(key, value)
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.uri)
        own = run.kept_id(self.name, lambda: self._created(client, run))
        client.update_run(own, status="RUNNING")
        return Stored(client, own)

    def _created(self, client: Any, run: RunInfo) -> str:
        found = client.get_experiment_by_name(self.experiment)
        where = found.experiment_id if found else client.create_experiment(self.experiment)
        own = str(client.create_run(where, run_name=run.name).info.run_id)
        client.log_dict(own, run.config, "config.yaml")
        return own


class Stored(TrackerRun):
    """A run in the store; epochs are its steps."""

    def __init__(self, client: Any, own: str) -> None:
        self.client, self.own = client, own
        steps = [metric.step for metric in client.get_metric_history(own, LAST)]
        self.known = max(steps, default=0)

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Store an epoch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(tag, value, now, epoch) for tag, value in values.items()]
        self.client.log_batch(self.own, metrics=metrics)

    def close(self, failed: bool) -> None:
        """Say how it ended."""
        self.client.set_terminated(self.own, "FAILED" if failed else "FINISHED")
