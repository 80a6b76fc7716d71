"""Comparison of two checkpoints image by image."""

from __future__ import annotations

from pathlib import Path

from cembench.evaluation.record import Record
from cembench.evaluation.record.collection import read_collection
from cembench.evaluation.record.files import load_beside, load_record
from cembench.evaluation.sections.threats import combined
from cembench.evaluation.statistics import paired_interval
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Settings

with lazy_imports():
    import pandas as pd
    from scipy.stats import binomtest


class Difference(Settings):
    """A figure of two checkpoints on the same images.

    Attributes:
        images: images in all.
        first: images that the first one gets right; `second` likewise.
        only_first: images that the first one alone gets right, by their numbers.
        only_second: likewise for the second.
        p_value: McNemar's exact test (1947): chance of such a split if both were equally good.
        drop_p_value: the same, one-sided: chance that the second one loses so many or more.
        difference: accuracy of the second minus that of the first.
        low: lower end of the difference's 95 % interval; `high` is its upper end.
        untried: images that an attack with a sample left untried on either side. They count as
            right there.
    """

    figure: str
    images: int
    first: int
    second: int
    only_first: list[int]
    only_second: list[int]
    p_value: float
    drop_p_value: float
    difference: float
    low: float
    high: float
    untried: int = 0


def record_of(path: Path, protocol: str = "*") -> Record:
    """Return the record that a path means: itself, or the one of a run folder.

    Those that `cembench check` wrote do not count where there is another one.

    Args:
        path: a record or a run folder, which may lie in a collection.
        protocol: name of the record, if there are several.

    Raises:
        CembenchError: when there is none, or several, or its checkpoint has been replaced.
    """
    if path.suffix == ".json":
        return load_record(path)
    found = _records(path, protocol)
    others = [file for file in found if not file.name.startswith("baseline-")]
    found = others if len(others) == 1 else found
    if len(found) == 1:
        record = load_beside(found[0])
        if record.replaced:
            raise CembenchError(f"{found[0]}: of other weights than lie beside it; evaluate again")
        return record
    names = ", ".join(file.stem for file in found)
    hint = f"choose one with --protocol: {names}" if found else "run `cembench eval` on it"
    raise CembenchError(f"{path}: {len(found)} records; {hint}")


def _records(run: Path, protocol: str) -> list[Path]:
    """Return the records of a run, in its folder or in a collection."""
    if (collection := RunLayout.collection(run)) is None:
        return RunLayout(run).records(protocol)
    paths = [one.path for one in read_collection(collection) if one.path.parent.parent == run]
    return [path for path in paths if path.match(f"{protocol}.json")]


def compare_records(first: Record, second: Record) -> list[Difference]:
    """Compare every figure that two records have in common.

    Raises:
        CembenchError: when they are not about the same images, threat model and protocol, or a
            table of verdicts is missing or damaged.
    """
    if "encoder" in (first.kind, second.kind):
        raise CembenchError("an encoder has no verdicts to compare; compare probes of it")
    require_alike(first, second)
    return differences(first.verdicts(), second.verdicts())


def differences(first: pd.DataFrame, second: pd.DataFrame) -> list[Difference]:
    """Compare every figure that two tables of verdicts about the same images have in common."""
    ours, theirs = right_of(first), right_of(second)
    untried = untried_of(first).add(untried_of(second), fill_value=False) > 0
    return [
        difference(name, first["index"], ours[name], theirs[name]).model_copy(
            update={"untried": int(untried[name].sum()) if name in untried else 0}
        )
        for name in ours
        if name in theirs
    ]


def right_of(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Return, by figure, which images of a table of verdicts are right."""
    clean = table["clean_pred"] == table["label"]
    broken = {name: table[f"{name}_broken"] for name in _attacks(table, "_broken")}
    return {"clean": clean} | {
        name: clean & ~pd.concat([broken[attack] for attack in attacks], axis=1).any(axis=1)
        for name, attacks in combined(broken).items()
    }


def untried_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return, by figure, which images of a table of verdicts an attack left untried."""
    sampled = _attacks(table, "_sample")
    right = right_of(table)
    found = {
        name: right[name] & (table[[f"{attack}_sample" for attack in own]] == "untried").any(axis=1)
        for name, attacks in combined(_attacks(table, "_broken")).items()
        if (own := [attack for attack in attacks if attack in sampled])
    }
    return pd.DataFrame(found)


def _attacks(table: pd.DataFrame, ending: str) -> list[str]:
    """Return the titles of the attacks with a column of this ending."""
    return [c.removesuffix(ending) for c in table.columns if c.endswith(ending)]


def difference(name: str, numbers: pd.Series, first: pd.Series, second: pd.Series) -> Difference:
    """Return the paired difference of two columns of booleans, and how likely chance made it."""
    lost, won = first & ~second, second & ~first
    b, c, n = int(lost.sum()), int(won.sum()), len(first)
    low, high = paired_interval(b, c, n)
    return Difference(
        figure=name,
        images=n,
        first=int(first.sum()),
        second=int(second.sum()),
        only_first=numbers[lost].tolist(),
        only_second=numbers[won].tolist(),
        p_value=float(binomtest(b, b + c).pvalue) if b + c else 1.0,
        drop_p_value=float(binomtest(b, b + c, alternative="greater").pvalue) if b + c else 1.0,
        difference=(c - b) / n,
        low=low,
        high=high,
    )


def require_alike(first: Record, second: Record) -> None:
    """Refuse records that are not about the same images, threat model and protocol.

    Raises:
        CembenchError: naming what differs.
    """
    for key in ("dataset", "threat", "protocol_digest", "fingerprint"):
        ours, theirs = getattr(first, key), getattr(second, key)
        if ours != theirs:
            raise CembenchError(f"records differ in {key}: {ours} and {theirs}")
