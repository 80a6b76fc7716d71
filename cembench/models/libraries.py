"""Architectures of torchvision, timm and RobustBench's model zoo; the last two are optional."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from cembench.models import ModelSettings, Shape
from cembench.util.errors import ModelError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import nearest

with lazy_imports():
    from torch import nn

    from cembench.models.blocks import ThreeChannels

CACHE = Path("~/.cache/cembench/robustbench")


class LibraryModel(ModelSettings):
    """An architecture of a library, by its name there."""

    arch: str

    @property
    def title(self) -> str:
        """The architecture."""
        return self.arch


class TorchvisionModel(LibraryModel):
    """A classification architecture of torchvision, with fresh weights.

    Attributes:
        arch: a name of `torchvision.models.list_models()`, such as `resnet50` or `vit_b_16`.
    """

    name: ClassVar[str] = "torchvision"

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Build the network; grey images are repeated to the three channels it wants."""
        from torchvision import models

        known = models.list_models(module=models)
        if self.arch not in known:
            raise ModelError(f"model.arch: unknown '{self.arch}'; {nearest(self.arch, known)}")
        options: dict[str, Any] = {"weights": None, "num_classes": classes}
        if self.arch.startswith("vit_"):
            options["image_size"] = shape[1]
        if self.arch in ("googlenet", "inception_v3"):
            options |= {"aux_logits": False, "init_weights": True}
        net = models.get_model(self.arch, **options)
        return nn.Sequential(ThreeChannels(), net) if shape[0] == 1 else net


class TimmModel(LibraryModel):
    """An architecture of timm, with fresh weights.

    Attributes:
        arch: a name of `timm.list_models()`, such as `convnext_tiny`.
    """

    name: ClassVar[str] = "timm"
    arch: Annotated[str, Field(pattern=r"^\w+$")]  # a colon would make timm ask a hub

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """Build the network, for images of that size where the architecture has to know it."""
        try:
            import timm
        except ImportError as error:
            raise ModelError("models of timm need it: pip install timm") from error
        if not timm.is_model(self.arch):
            hint = nearest(self.arch, timm.list_models())
            raise ModelError(f"model.arch: unknown '{self.arch}'; {hint}")
        options: dict[str, Any] = {"num_classes": classes, "in_chans": shape[0]}
        try:
            return timm.create_model(self.arch, img_size=shape[1:], **options)
        except TypeError:
            return timm.create_model(self.arch, **options)


class RobustBenchModel(LibraryModel):
    """A model of the zoo of arXiv 2010.09670.

    Attributes:
        arch: name in the zoo, such as `Carmon2019Unlabeled`.
        dataset: data set that it is listed under.
        threat: threat model that it is listed under.
    """

    name: ClassVar[str] = "robustbench"
    arch: str
    dataset: Literal["cifar10", "cifar100", "imagenet"] = "cifar10"
    threat: Literal["Linf", "L2", "corruptions"] = "Linf"

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
        import pyautoattack

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
