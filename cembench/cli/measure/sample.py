"""`cembench sample`: draw samples from checkpoints, or let them edit test images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cembench.cli.arguments import divided
from cembench.cli.base import DATA_ROOT, DEVICE, FILE, JSON, SET, Command, say
from cembench.cli.names import file, offer
from cembench.util.display.json_text import to_json
from cembench.util.errors import CembenchError

if TYPE_CHECKING:
    from cembench.models.source import ModelSource
    from cembench.samplers import Sampler
    from cembench.samplers.edit import Edit

    Said = tuple[dict[str, Any], list[str]]

STARTS = ["gaussian", "pooled", "cluster", "noise", "smooth", "data", "buffer", "outside"]
SAMPLERS = offer("samplers")
LINES = (("classified as intended", "own_acc", ".1%"), ("log p(x) + const", "lse", ".3g"))
OPTIONS = {"counterfactual": "--counterfactual", "part": "--inpaint", "sigma": "--denoise"}
OPTIONS |= {"start": "--init", "tensors": "--save-tensors", "trajectory": "--trajectory"}
OPTIONS |= {key: f"--{key}" for key in ("eps", "norm", "confidence", "image")}
DEFAULT = click.core.ParameterSource.DEFAULT
KEYS = "cembench.samplers.energy:EnergySampler"
COUNTERFACTUAL = "Change test images until they are read as another class."
INPAINT = "Fill a part: top, bottom, left, right, centre, random:0.5."


@click.command(
    "sample", cls=Command, settings=KEYS, example="runs/at --sampler sgld --init noise noise=0.01"
)
@click.argument("words", nargs=-1, metavar="CHECKPOINT... [KEY=VALUE]...", shell_complete=file)
@click.option("--sampler", default="rcs", shell_complete=SAMPLERS, help="See `list samplers`.")
@click.option("-n", "count", default=80, type=click.IntRange(1), help="Number of samples.")
@click.option("--class", "label", help="Name of the one class to draw.")
@click.option("--init", "--seeds", "start", type=click.Choice(STARTS), help="Initial images.")
@click.option("--image", type=click.IntRange(0), help="Row of the training image to approach.")
@click.option("--steps", type=click.IntRange(1), help="Steps of each chain.")
@click.option("--counterfactual", is_flag=True, help=COUNTERFACTUAL)
@click.option("--eps", help="Largest change of a counterfactual.")
@click.option("--norm", help="Norm of that change; l2 unless given.")
@click.option("--confidence", help="Confidence in its class; 0.9 unless given.")
@click.option("--inpaint", "part", metavar="PART", help=INPAINT)
@click.option("--denoise", "sigma", metavar="SIGMA", help="Remove noise added to test images.")
@SET(help="The same as KEY=VALUE.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Of initial images and noise.")
@click.option("--out", "picture", type=FILE, default="grid.png", help="Picture of samples (PNG).")
@click.option("--save-tensors", "tensors", type=FILE, help="Save samples as safetensors.")
@DATA_ROOT
@click.option("--trajectory", type=FILE, help="Save the chains' steps: a .gif or .png strip.")
@JSON(help="Print all settings and scores as JSON.")
@DEVICE
def command(
    words: tuple[str, ...],
    overrides: tuple[str, ...],
    label: str | None,
    as_json: bool,
    data_root: str | None,
    device: str,
    **given: Any,
) -> None:
    """Draw samples from a checkpoint into a picture.

    Prints how the network itself classifies them. KEY=VALUE changes a setting of the sampler, see
    `list SAMPLER`. Of several checkpoints, the picture has a row each, from the same initial
    images. With --counterfactual, --inpaint or --denoise, test images are edited.
    """
    from cembench.interop.hub.cache import local
    from cembench.models.metadata import read_metadata
    from cembench.util.devices import pick_device
    from cembench.util.files.layout import RunLayout

    named, assignments = divided(words)
    if not named:
        raise CembenchError("name a CHECKPOINT")
    edit = _edit(given, overrides := (*overrides, *assignments))
    sampler = None if edit is not None else _sampler(given, overrides)
    checkpoints = [local(name) for name in named]
    classes = read_metadata(RunLayout.at(checkpoints[0]).checkpoint).classes
    options = {key: given[key] for key in ("count", "picture", "seed")}
    options["label"] = None if label is None else _label(label, classes, edit or sampler)
    if len(checkpoints) > 1:
        _refuse(given, ["tensors", "trajectory"], "of one CHECKPOINT alone")
    from cembench.models.source import ModelSource

    sources = [ModelSource.at(path).moved(data_root) for path in checkpoints]
    options["device"] = pick_device(device)
    if edit is not None:
        values, lines = _edited(sources, edit, options | {"tensors": given["tensors"]})
    elif len(sources) > 1:
        values, lines = _rows(sources, sampler, options)
    else:
        files = {key: given[key] for key in ("tensors", "trajectory")}
        values, lines = _samples(sources[0], sampler, options | files)
    say(to_json(values) if as_json else "\n".join(lines))


def _edit(given: dict[str, Any], overrides: tuple[str, ...]) -> Edit | None:
    """Return how test images are edited, if they are.

    Raises:
        CembenchError: for options that do not go together, and wrong settings.
    """
    asked = [key for key in ("counterfactual", "part", "sigma") if given[key] not in (None, False)]
    if len(asked) > 1:
        names = " and ".join(OPTIONS[key] for key in asked)
        raise CembenchError(f"{names}: give one of them")
    if asked != ["counterfactual"]:
        _refuse(
            given,
            ["eps", "norm", "confidence"],
            "goes with --counterfactual; a sampler takes eps=2",
        )
    if not asked:
        return None
    _refuse(given, ["start", "image", "trajectory"], f"not with {OPTIONS[asked[0]]}; drop it")
    from cembench.samplers.counterfactual import Counterfactual
    from cembench.samplers.restoration import Denoise, Inpaint
    from cembench.util.overrides import override

    if asked == ["counterfactual"]:
        if click.get_current_context().get_parameter_source("sampler") is not DEFAULT:
            raise CembenchError("--sampler: not with --counterfactual; drop it")
        keys = [key for key in ("eps", "norm", "confidence", "steps") if given[key] is not None]
        return Counterfactual.parse(override({}, [f"{k}={given[k]}" for k in keys] + [*overrides]))
    steps = {} if given["steps"] is None else {"steps": given["steps"]}
    sampler = override({"name": given["sampler"], **steps}, overrides)
    if asked == ["part"]:
        return Inpaint.parse({"part": given["part"], "sampler": sampler})
    return Denoise.parse({**override({}, [f"sigma={given['sigma']}"]), "sampler": sampler})


def _sampler(given: dict[str, Any], overrides: tuple[str, ...]) -> Sampler:
    from cembench.samplers import samplers
    from cembench.util.overrides import override

    chosen = {key: given[key] for key in ("start", "steps", "image") if given[key] is not None}
    return samplers.parse(override({"name": given["sampler"], **chosen}, overrides))


def _label(label: str, classes: list[str], settings: Any) -> int:
    """Return the number of a class.

    Raises:
        CembenchError: when there is none of that name, or the sampler has no target classes.
    """
    from cembench.util.settings import nearest

    if label not in classes:
        raise CembenchError(f"--class: no class '{label}'; {nearest(label, classes)}")
    sampler = getattr(settings, "sampler", settings)
    if (
        getattr(sampler, "target_type", "class") == "none"
        or getattr(sampler, "image", None) is not None
    ):
        raise CembenchError("--class: with --image, or a sampler without target classes; drop it")
    return classes.index(label)


def _refuse(given: dict[str, Any], keys: list[str], why: str) -> None:
    for key in keys:
        if given[key] is not None:
            raise CembenchError(f"{OPTIONS[key]}: {why}")


def _samples(source: ModelSource, sampler: Any, options: dict[str, Any]) -> Said:
    """Draw samples of one network; return all values, and lines that say them."""
    from cembench.samplers.to_files import sample_to_files

    count = options["count"]
    summary = sample_to_files(source, sampler, **options)
    lines = [f"{count} samples of {sampler.title}, {sampler.gradients} steps: {options['picture']}"]
    lines += _told(summary)
    return {"samples": count, "sampler": sampler.dump(), **summary}, lines


def _rows(sources: list[ModelSource], sampler: Any, options: dict[str, Any]) -> Said:
    """Draw samples of several networks from the same initial images."""
    from cembench.samplers.rows import rows_to_file

    count, picture = options["count"], options["picture"]
    found = rows_to_file(sources, sampler, **options)
    lines = [f"{count} samples each of {sampler.title}, {sampler.gradients} steps: {picture}"]
    lines += [f"{name}: {line}" for name, summary in found.items() for line in _told(summary)]
    return {"samples": count, "sampler": sampler.dump(), "networks": found}, lines


def _edited(sources: list[ModelSource], edit: Edit, options: dict[str, Any]) -> Said:
    """Let networks edit test images."""
    from cembench.samplers.edit_files import edit_to_files

    found = edit_to_files(sources, edit, **options)
    count = len(next(iter(found.values())).images)
    summaries = {name: edit.summary(edit.figures(one)) for name, one in found.items()}
    seed = options["seed"]
    lines = [f"{edit.title} of {count} test images, seed {seed}: {options['picture']}"]
    for name, summary in summaries.items():
        start = f"{name}: " if len(found) > 1 else ""
        lines += [f"{start}{line}" for line in edit.lines(summary)]
    rest = {"networks": summaries} if len(found) > 1 else next(iter(summaries.values()))
    return {"images": count, "seed": seed, "settings": edit.dump(), **rest}, lines


def _told(summary: dict[str, float]) -> list[str]:
    """Return what the network says of its samples, beside what it says of their initial images."""
    return [
        f"{words}: {summary[key]:{form}} (initial images: {summary[f'{key}_start']:{form}})"
        for words, key, form in LINES
        if key in summary
    ]
