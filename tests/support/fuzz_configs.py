"""Random damage to real configurations, which have to be read or refused in one clear line.

Recipes, studies, protocols, a baseline and a grid are changed as values, as text, as bytes, or by
`KEY=VALUE`. What comes out is reproduced by its seed and number.
"""

from __future__ import annotations

import copy
import io
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from cembench.evaluation.gate.baseline import Baseline, load_baseline
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.suites.suite import load_suite
from cembench.training.config import Experiment, load_experiment
from cembench.util.errors import CembenchError
from cembench.util.files import digest
from cembench.util.files.names import shown
from cembench.util.files.yaml import in_line, parse_yaml, to_yaml
from cembench.util.settings import Settings

ROOT = Path(__file__).parents[2]
SLOW = 1.0  # seconds of CPU that reading may take; what takes longer is counted
LONGEST = 20_000  # characters of a message

GRID = """
protocol: quick
shared: {data: digits, model: {name: small_cnn, width: 8}, method: at, epochs: 2}
seeds: [0, 1]
grid: {method.name: [at, trades], optimizer.lr: [0.1, 0.01]}
experiments: {standard: {method: standard}, probed: {probe: {of: standard, mode: adv-linear}}}
"""
# fmt: off
NUMBERS = [0, -1, 1, 2**31, 2**63 - 1, -(2**63), 2**63, 10**18, 10**400, 0.5, -0.5, 1e-320, 1e308,
           -1e308, float("nan"), float("inf"), -float("inf"), 5e-324, 1 / 3]
TEXTS = ["", " ", "at", "pgd", "digits", "rcs", "small_cnn", "quick", "no", "null", "~", "1e-3",
         "8/255", "1/0", "-8/255", f"{'9' * 400}/1", "0x10", "1_000", "1:30", "2020-01-01", "=c",
         "../../x", "/etc/passwd", "a\nb", "a\x1b[2J", "ε", "🙂", "a\u202eb", "x" * 300, "é" * 9000,
         "\udce9", "<<", "*a", "&a", "!!int 3", "{a: 1}", "[", "nan", ".inf", "true", "a: b", "#"]
WHOLES = [None, True, False, [], {}, [[]], [None], {"name": None}, {"": 1}, {"name": []},
          {"name": {"name": "at"}}, {"a.b": 1}, [{"name": "pgd"}] * 3, {"name": "rcs", "steps": -1}]
PIECES = ["\t", "\0", "\ufeff", "\u2028", "\x85", "- ", ": ", "? ", "{", "}", "[", "]", ",", "#",
          '"', "|", ">", "&a ", "*a ", "<<: *a", "!!python/name:os.system ", "!t ", "!!binary ",
          "%YAML 1.1\n---\n", "---\n", "...\n", "\n", "\r", " ", "  ", "\\", "@", "`", "\x1b", "é",
          "%", "'"]
ENDS = ["data: &a [*a]", "x: &a {b: *a}", "<<: {a: 1}", "<<: 3", "<<: [1]", "? [a]\n: 1", "1: 2",
        "~: 1", "true: 1", "? {a: 1}\n: 2", "x: 0o17", "x: 0b1", "x: 1__0", "x: 2001-12-14",
        "x: !!set {a}", "x: !!omap [a: 1]", "x: !!float nan", "x: !!null x", "x: !!bool x", ".: 1"]
DEEP = ["[", "{a: ", "- ", "? ", "!t ", "&a "]
# fmt: on


class Kind(NamedTuple):
    """A kind of files: how one is read, and how what was read is written and read again."""

    read: Callable[[Path, list[str]], Any]
    again: Callable[[Any], Any]


def _settings(cls: type[Settings]) -> Callable[[Any], Any]:
    return lambda found: cls.parse(parse_yaml(to_yaml(found.dump()), "again"))


def _suite(found: tuple[dict[str, Experiment], Protocol]) -> Any:
    experiments, protocol = found
    again = {name: _settings(Experiment)(one) for name, one in experiments.items()}
    return again, _settings(Protocol)(protocol)


KINDS = {
    "experiment": Kind(load_experiment, _settings(Experiment)),
    "protocol": Kind(lambda path, changes: load_protocol(str(path), changes), _settings(Protocol)),
    "suite": Kind(lambda path, changes: load_suite(path), _suite),
    "baseline": Kind(lambda path, changes: load_baseline(path), _settings(Baseline)),
}


CHANGED = ("experiment", "protocol")  # kinds whose commands take KEY=VALUE


@cache
def sources() -> list[tuple[str, str]]:
    """Return real configurations: the kind of each, and its text."""
    folders = [
        "cembench/recipes",
        "cembench/protocols",
        "configs/studies",
        "leaderboards/reference",
    ]
    files = [file for folder in folders for file in sorted((ROOT / folder).glob("*.yaml"))]
    texts = [file.read_text("utf-8") for file in files] + [GRID]
    return [(_kind(parse_yaml(text, "source").keys()), text) for text in texts]


@cache
def _known() -> dict[Any, list[Any]]:
    """Return by key the values that it has somewhere."""
    found: dict[Any, list[Any]] = {}
    for _, text in sources():
        for inside, key in _places(parse_yaml(text, "source")):
            found.setdefault(key, []).append(inside[key])
    return found


def _kind(keys: Any) -> str:
    marks = {"rows": "baseline", "experiments": "suite", "grid": "suite"}
    marks |= {"attacks": "protocol", "samples": "protocol"}
    return next((kind for key, kind in marks.items() if key in keys), "experiment")


def fuzz_configs(count: int, seed: int) -> Counter[str]:
    """Read so many spoilt configurations.

    Returns:
        How many were read and refused, by kind and manner of damage; and how many took long.

    Raises:
        AssertionError: with what was read, for another exception than CembenchError, a message
            that names neither file nor option, or settings that do not come back as they were.
    """
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for study in (ROOT / "configs" / "studies").glob("*.yaml"):  # suites name protocols there
            shutil.copy(study, folder)
        for number in range(count):
            dice = random.Random(f"{seed}/{number}")
            kind, text = dice.choice(sources())
            manner = dice.choice([m for m in MANNERS if m != "set" or kind in CHANGED])
            content, changes = MANNERS[manner](text, dice)
            path = Path(folder) / "config.yaml"
            path.write_bytes(content)
            begun = time.process_time()
            outcome = _outcome(KINDS[kind], path, changes, f"{seed}/{number} {kind} {manner}")
            found["slow"] += time.process_time() - begun > SLOW
            found[f"{kind} {manner} {outcome}"] += 1
    return found


def _outcome(kind: Kind, path: Path, changes: list[str], which: str) -> str:
    try:
        values = kind.read(path, changes)
    except CembenchError as error:
        text = str(error)
        named = str(path.parent) in text or "--set" in text
        assert named and 0 < len(text) < LONGEST, f"{which}: {shown(text)[:500]}"
        return "refused"
    except Exception as error:
        raise AssertionError(f"{which}: {error!r:.500}, {changes}") from error
    try:
        assert kind.again(values) == values, f"{which}: comes back as another"
        assert all(len(digest(one.dump())) == 12 for one in _all(values))
    except Exception as error:
        raise AssertionError(f"{which}: cannot be written: {error!r:.500}") from error
    return "read"


def _all(values: Any) -> Iterator[Settings]:
    yield from [*values[0].values(), values[1]] if isinstance(values, tuple) else [values]


def _values(text: str, dice: random.Random) -> tuple[bytes, list[str]]:
    """Change, delete, add, nest, swap and repeat values."""
    values = copy.deepcopy(parse_yaml(text, "source"))
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        known = [*_places(values)]
        inside, key = dice.choice(known)
        other, name = dice.choice(known)
        match dice.randrange(12):
            case 0:
                del inside[key]
            case 1 if isinstance(inside, dict):
                inside[dice.choice([*TEXTS, name])] = _junk(dice)
            case 2:
                inside[key] = {"name": inside[key]}
            case 3:
                inside[key] = copy.deepcopy(other[name])
            case 4:
                inside[key] = [inside[key]] * dice.choice([1, 2, 50])
            case 5 if isinstance(inside[key], int | float):
                inside[key] = str(inside[key])
            case 6 | 7:
                inside[key] = _scaled(inside[key], dice)
            case 8 | 9 | 10 if key in _known():
                inside[key] = copy.deepcopy(dice.choice(_known()[key]))
            case _:
                inside[key] = _junk(dice)
        if not [*_places(values)]:
            break
    return _written(values), []


def _junk(dice: random.Random, depth: int = 0) -> Any:
    if depth < 3 and dice.random() < 0.15:
        inner = [_junk(dice, depth + 1) for _ in range(dice.randrange(4))]
        return inner if dice.random() < 0.5 else dict(zip(TEXTS, inner, strict=False))
    return copy.deepcopy(dice.choice(dice.choice([NUMBERS, TEXTS, WHOLES])))


def _scaled(value: Any, dice: random.Random) -> Any:
    """Return a number that is much larger, smaller or negative; another value for others."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return not value
    return type(value)(value * dice.choice([0, -1, 2, 0.5, 10, 1000, 10**6, 10**12]))


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in nested values: the mapping or list, and the key or number."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in list(items):
        yield values, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _written(values: Any) -> bytes:
    """Return values as YAML, also those that cembench would not write."""
    yaml, stream = YAML(typ="safe", pure=True), io.StringIO()
    yaml.dump(values, stream)
    return stream.getvalue().encode(errors="surrogateescape")


def _text(text: str, dice: random.Random) -> tuple[bytes, list[str]]:
    """Insert, delete and repeat pieces of the text."""
    lines = text.splitlines()
    for _ in range(dice.choice([1, 1, 2, 5])):
        place = dice.randrange(len(lines))
        column = dice.randrange(len(lines[place]) + 1)
        before, after = lines[place][:column], lines[place][column:]
        match dice.randrange(6):
            case 0:
                lines[place] = before
            case 1:
                lines.insert(dice.randrange(len(lines)), lines[place])
            case 2:
                lines.insert(place, dice.choice(ENDS))
            case 3:
                lines.append(dice.choice(ENDS))
            case _:
                lines[place] = before + dice.choice(PIECES) + after
    return "\n".join(lines).encode(), []


def _bytes(text: str, dice: random.Random) -> tuple[bytes, list[str]]:
    """Write another encoding, cut, flip a bit, or nest deeply."""
    content = text.encode()
    place = dice.randrange(len(content))
    many, deep = dice.choice([3, 50, 500, 20_000]), dice.choice(DEEP)
    changed = [
        b"\xef\xbb\xbf" + content,
        text.encode(dice.choice(["utf-16", "utf-16-le", "utf-32", "utf-7"])),
        content[:place],
        content[:place] + bytes([content[place] ^ 1 << dice.randrange(8)]) + content[place + 1 :],
        content[:place] + dice.randbytes(3) + content[place:],
        content.replace(b" ", b"\t", dice.choice([1, -1])),
        content.replace(b"\n", dice.choice([b"\r\n", b"\r", b"\n\n", b"\x85"])),
        content + f"\nx: {deep * many}".encode(),
        f"{deep * many}\n".encode() + content,
        content + b"\nx: " + b"[" * min(many, 900) + b"]" * min(many, 900),
        content + f"\n{'k' * many}: 1".encode(),
        content * 2,
        b"",
    ]
    return dice.choice(changed), []


def _set(text: str, dice: random.Random) -> tuple[bytes, list[str]]:
    """Give `KEY=VALUE`, with keys of the settings and others."""
    paths = [".".join(map(str, path)) for path in _paths(parse_yaml(text, "source"))]
    changes = []
    for _ in range(dice.choice([1, 1, 1, 3])):
        key = dice.choice([*paths, *paths, *TEXTS, "a" + ".a" * 5000, "..", "name", "threat.eps"])
        odd = [str(_junk(dice)), dice.choice(PIECES), "{", "*a", "[" * 5000, "1", ""]
        usual = _known().get(key.rpartition(".")[2], [1])
        value = dice.choice([dice.choice(odd), in_line(dice.choice(usual))])
        changes.append(f"{key}={value}" if dice.random() < 0.9 else dice.choice([key, f"={value}"]))
    return text.encode(), changes


def _paths(values: Any) -> Iterator[tuple[Any, ...]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield (key,)
            yield from ((key, *rest) for rest in _paths(value))


MANNERS = {"values": _values, "text": _text, "bytes": _bytes, "set": _set}
