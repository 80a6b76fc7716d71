"""Architectures of RobustBench's model zoo, if it is installed."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyautoattack
from torch import nn

from cembench.models import ModelSettings, Shape
from cembench.util.errors import ModelError
from cembench.util.settings import nearest

CACHE = Path("~/.cache/cembench/robustbench")


class RobustBenchModel(ModelSettings):
    """Model of RobustBench's zoo (arXiv 2010.09670).

    Attributes:
        arch: name in the zoo, such as `Carmon2019Unlabeled`.
        dataset: data set that it is listed under.
        threat: threat model that it is listed under.
    """

    name: ClassVar[str] = "robustbench"
    arch: str
    dataset: Literal["cifar10", "cifar100", "imagenet"] = "cifar10"
    threat: Literal["Linf", "L2", "corruptions"] = "Linf"

    @property
    def title(self) -> str:
        """Name in the zoo."""
        return self.arch

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Build the network with random weights."""
        net: nn.Module = self._listed()["model"]()
        return net

    def download(self) -> nn.Module:
        """Return the network with its published weights, from a cache or downloaded.

        Raises:
            ModelError: when they are not in the cache and cannot be downloaded.
        """
        self._listed()
        from robustbench.utils import load_model

        where: dict[str, Any] = {"dataset": self.dataset, "threat_model": self.threat}
        try:
            with redirect_stdout(sys.stderr):
                net: nn.Module = load_model(self.arch, CACHE.expanduser(), **where)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"robustbench cannot load {self.arch}: {reason}; fetch its file and give --weights"
            ) from error
        return net

    def _listed(self) -> dict[str, Any]:
        # robustbench depends on pyautoattack, but imports it by the name of another package.
        sys.modules.setdefault("autoattack", pyautoattack)
        try:
            from robustbench.model_zoo import model_dicts
            from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
        except ImportError as error:
            raise ModelError(
                "models of RobustBench need it, and an old setuptools: "
                f"pip install robustbench 'setuptools<81' ({error})"
            ) from error
        known = model_dicts[BenchmarkDataset(self.dataset)][ThreatModel(self.threat)]
        if self.arch not in known:
            where = f"{self.dataset}, {self.threat}"
            hint = nearest(self.arch, known)
            raise ModelError(f"robustbench has no '{self.arch}' for {where}; {hint}")
        listed: dict[str, Any] = known[self.arch]
        return listed
