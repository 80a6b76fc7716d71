"""Subject of a call: a checkpoint or a network in memory, with the data that it classifies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cembench.api.data import fitted
from cembench.data import DataSettings
from cembench.data.in_memory import InMemoryData
from cembench.energy.threat import Threat, ThreatChange
from cembench.interop.hub.cache import local
from cembench.util.errors import CembenchError, under
from cembench.util.lazy import lazy_imports

with lazy_imports():
    import torch
    from torch import Tensor, nn

    from cembench.data.split import Split
    from cembench.interop.importing.normalisation import infer_normalisation
    from cembench.models.classifier import Classifier
    from cembench.models.function import FunctionModel
    from cembench.models.source import ModelSource
    from cembench.util.devices import device_of
    from cembench.util.frozen import frozen

ThreatLike = Threat | Mapping[str, Any] | str


def subject(
    model: str | Path | nn.Module | Callable[[Tensor], Any],
    data: DataSettings | None,
    threat: ThreatLike | None = None,
    trust_pixels: bool = True,
) -> ModelSource:
    """Return the network of a call, with its data and threat model.

    Raises:
        CembenchError: when network, data and threat model do not fit together.
    """
    if isinstance(model, nn.Module):
        return _in_memory(model, data, threat, trust_pixels)
    if not isinstance(model, str | Path):
        if isinstance(model, type) or not callable(model):
            raise CembenchError(
                f"model: a {type(model).__name__} is no torch.nn.Module, function, checkpoint or "
                "run folder; give what takes images N×C×H×W in [0, 1] and returns N×K logits"
            )
        return _in_memory(FunctionModel(model), data, threat, trust_pixels)
    if threat is not None or not (data is None or isinstance(data, InMemoryData)):
        raise CembenchError(
            f"{model}: a checkpoint says its data and threat model itself; change them with "
            "data_root, and with threat in the protocol"
        )
    source = ModelSource.at(local(model))
    if data is None:
        return source
    changed = source.metadata.model_copy(update={"data": fitted(data, source.metadata)})
    return replace(source, metadata=changed)


def _in_memory(
    module: nn.Module, data: DataSettings | None, threat: ThreatLike | None, trust_pixels: bool
) -> ModelSource:
    known = module.metadata if isinstance(module, Classifier) else None
    if data is not None and known is not None:
        data = fitted(data, known)
    elif isinstance(data, InMemoryData):
        data = data.fitted(_outputs(module, data.example_split()))
    budget = None
    if threat is not None and (base := data or known) is not None:
        if not isinstance(threat, str | Mapping | Threat | ThreatChange):
            raise CembenchError(
                f"threat: a {type(threat).__name__} is none; give text such as 'linf 8/255', or "
                "{'norm': 'l2', 'eps': 0.5}"
            )
        with under("threat"):
            change = ThreatChange.of(threat)
        budget = change.over(base.threat, "threat.eps")
    source = ModelSource.of(module, data, budget)
    if not trust_pixels and source.metadata.method == "imported":
        # refuses a network that wants other pixels than [0, 1], or gives no logits
        assert source.model is not None
        source.metadata.require_named_root()
        infer_normalisation(source.model, source.metadata.data.example_split(), "none")
    return source


def _outputs(module: nn.Module, split: Split) -> int:
    """Return the number of logits; the classes of the split where a later error tells why not."""
    x = split.pixels(torch.arange(1)).to(device_of(module))
    try:
        with frozen(module), torch.no_grad():
            out = module(x)
    except Exception:  # a network may raise anything; evaluation says what, in one line
        return len(split.classes)
    return out.shape[1] if isinstance(out, Tensor) and out.ndim == 2 else len(split.classes)
