"""Architectures of RobustBench's model zoo, where it is installed."""

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
    """A model of the zoo of arXiv 2010.09670.

    Attributes:
        arch: its name there, such as `Carmon2019Unlabeled`.
        dataset: the data set that it is listed under.
        threat: the threat model that it is listed under.
    """

    name: ClassVar[str] = "robustbench"
    arch: str
    dataset: Literal["cifar10", "cifar100", "imagenet"] = "cifar10"
    threat: Literal["Linf", "L2", "corruptions"] = "Linf"

    @property
    def title(self) -> str:
        """Its name in the zoo."""
        return self.arch

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Build the network with fresh weights."""
        net: nn.Module = self._listed()["model"]()
        return net

    def download(self) -> nn.Module:
        """Return the network with its published weights, from a cache or from the net.

        Raises:
            ModelError: when they can be neither found nor fetched.
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
        # robustbench asks for the package pyautoattack, but imports it under its old name.
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
