"""Evaluation from Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cembench.api.arguments import checked
from cembench.api.data import parse_data
from cembench.api.subject import ThreatLike, subject
from cembench.data.roots import remember
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import Protocol, load_protocol, parse_protocol
from cembench.evaluation.record import Record
from cembench.evaluation.record.origin import in_memory
from cembench.interop.hub.address import local_folder
from cembench.interop.hub.cache import local, placed
from cembench.util.errors import CembenchError
from cembench.util.lazy import lazy_imports

with lazy_imports():
    from torch import Tensor, nn

    from cembench.evaluation.evaluate import evaluate as evaluate_source
    from cembench.reporting.plots.curves import write_curve
    from cembench.util.processes.distributed import world
    from cembench.util.processes.process_group import process_group


@checked
def evaluate(
    model: str | Path | nn.Module | Callable[[Tensor], Any],
    data: Any = None,
    protocol: str | Path | Mapping[str, Any] | Sequence[Any] | Protocol = "quick",
    *,
    attacks: str | Sequence[Any] | None = None,
    train: Any = None,
    threat: ThreatLike | None = None,
    threats: str | Sequence[ThreatLike] | None = None,
    out: str | Path | None = None,
    trust_pixels: bool = False,
    device: str = "auto",
    data_root: str | None = None,
    inception_weights: str | Path | None = None,
    save_samples: bool = False,
    save_adversarial: bool = False,
) -> Record:
    """Attack a network and score its samples, as a protocol says; return the record.

    Args:
        model: a checkpoint or run folder; or a network in memory, a `torch.nn.Module` or any other
            function: images in [0, 1], N×C×H×W, to N×K logits, as a tensor or a NumPy array. It is
            left as it was. A checkpoint may be an address, such as `hf://USER/NAME`, which is put
            into `runs/NAME`. Where autograd finds no gradient through it, attacks that need none
            apply; a function is to put its network in evaluation mode itself.
        data: a data set by name or as settings, or test images from memory as `dataset` takes them:
            `(x, y)`, a `Dataset`, a `DataLoader`. A checkpoint has its own unless given.
        protocol: a name, a YAML file, its content, or a list of attacks.
        attacks: attacks, in place of a protocol.
        train: training images beside test images from memory. Without them nothing is sampled, and
            the record says so.
        threat: the threat model of a network in memory, such as `"linf 8/255"` or
            `{"norm": "l2", "eps": 0.5}`; customary for the data unless given.
        threats: several threat models, in place of those of the protocol: the first one is that of
            the record, and `record.threats` has the figures under each and their union.
        out: the folder where `eval` and `samples` go. Beside a checkpoint unless given; of a
            network in memory no file is kept then.
        trust_pixels: leave out the check that a network in memory is right on images as they are
            (training images, if there are any), more often than under another normalisation.
        device: where to compute.
        data_root: where the data lies now.
        inception_weights: weights for the extractors `inception` and `dinov2`.
        save_samples: keep all samples beside the pictures of them.
        save_adversarial: keep what broke each image, for `record.adversarial`.

    Raises:
        CembenchError: when model or data cannot be used. A network that breaks its contract gives a
            record with `error` and no figures instead.
    """
    if threats is not None and threat is not None:
        raise CembenchError("give threat or threats: the first of several is that of the record")
    if attacks is not None and protocol != "quick":
        raise CembenchError("attacks: the protocol has its own; give one of the two")
    listed = [attacks] if isinstance(attacks, str | Mapping) else attacks
    plan = _protocol(protocol if listed is None else listed, threats)
    for other in plan.other_data:
        remember(other)
    with TemporaryDirectory() as nowhere, process_group(device) as own:
        place = nowhere if out is None and not isinstance(model, str | Path) else out
        source = world().on_all_ranks(
            lambda: subject(
                _reached(model, out),
                None if data is None and train is None else parse_data(data, "test", train),
                threat,
                trust_pixels,
            )
        )
        record, _ = evaluate_source(
            source,
            plan,
            folder=None if place is None else local_folder(place),
            device=own,
            data_root=data_root,
            inception_weights=None if inception_weights is None else Path(inception_weights),
            save_samples=save_samples,
            save_adversarial=save_adversarial,
            on_record=write_curve,
        )
        if place == nowhere:
            record._origin = world().on_rank_zero(lambda: in_memory(record, save_adversarial))
        return record


def _reached(model: Any, out: str | Path | None) -> Any:
    """Return a network in memory, or the path of a checkpoint, fetched if it is an address."""
    if not isinstance(model, str | Path):
        return model
    return placed(model) if out is None else local(model)


def _protocol(
    protocol: str | Path | Mapping[str, Any] | Sequence[Any] | Protocol,
    threats: str | Sequence[ThreatLike] | None,
) -> Protocol:
    change: dict[str, Any] = {} if threats is None else {"threats": _plain(threats)}
    if isinstance(protocol, str | Path):
        return load_protocol(str(protocol), [f"{k}={json.dumps(v)}" for k, v in change.items()])
    if isinstance(protocol, Protocol):
        return parse_protocol({**protocol.dump(), **change}) if change else protocol
    if isinstance(protocol, Mapping):
        return parse_protocol({**protocol, **change})
    if not isinstance(protocol, Iterable):
        raise CembenchError(
            f"protocol: give a name, a file, settings or a list of attacks, got {protocol!r}"
        )
    return parse_protocol({"attacks": list(protocol), **change})


def _plain(threats: str | Sequence[ThreatLike]) -> Any:
    if isinstance(threats, str):
        return threats
    if not isinstance(threats, Iterable):
        raise CembenchError(f"threats: give a list such as ['linf 8/255', 'l2'], got {threats!r}")
    return [one.dump() if isinstance(one, Threat) else one for one in threats]
