"""YAML 1.2 of plain values, read strictly: no tags, no duplicate keys, no endless aliases."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.representer import SafeRepresenter

from cembench.util.errors import ConfigError
from cembench.util.files import read_bytes

LONGEST = 100_000  # characters of settings, aliases followed: reading takes seconds at most
DEEPEST = 100  # levels of nesting
_UNWRITABLE = re.compile(r"[\0\ud800-\udc7f\udd00-\udfff]")  # bytes of paths are between them


def parse_yaml(text: str, source: str) -> Any:
    """Read YAML 1.2 without tags; duplicate keys and syntax errors are named with their line.

    Raises:
        ConfigError: for anything that is not plain YAML, or longer than settings ever are.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError(f"longer than {LONGEST} characters")
        yaml = YAML(typ="safe", pure=True)
        yaml.max_depth = DEEPEST  # before 0.19 ruamel ends at Python's own limit, after a second
        yaml.composer.warn_double_anchors = False
        values = yaml.load(text)
        _require_plain(values)
        return values
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f" in line {mark.line + 1}" if mark else ""
        problem = (error.problem or error.context or "syntax error").splitlines()[0][:200]
        problem = problem.removesuffix(", if necessary increase YAML().max_depth")
        raise ConfigError.single(f"{source}: not valid YAML{line}: {problem}") from None
    except (YAMLError, ValueError, KeyError, RecursionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigError.single(f"{source}: not valid YAML: {reason}") from None


def _require_plain(values: Any) -> None:
    """Refuse what only Python could mean, and aliases that make a short text huge or endless."""
    left, size = [values], 0
    while left:
        value = left.pop()
        size += len(value) if isinstance(value, list | dict | str) else 1
        if size > LONGEST:
            raise ValueError(f"longer than {LONGEST} characters once its aliases are followed")
        if isinstance(value, list | dict):
            left += value if isinstance(value, list) else [*value, *value.values()]
        else:
            _require_scalar(value)


def _require_scalar(value: Any) -> None:
    if not isinstance(value, str | int | float | None):
        raise ValueError(f"a {type(value).__name__} is no setting; in quotes it is a text")
    if isinstance(value, str) and _UNWRITABLE.search(value):
        raise ValueError("a text with a character that no file can hold")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("a whole number of more than 64 bits")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        CembenchError: for a missing file, bad YAML or anything but a mapping.
    """
    try:
        text = read_bytes(path).decode()
    except UnicodeDecodeError:
        raise ConfigError.single(f"{path}: not a text file in UTF-8") from None
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError.single(f"{path}: expected a mapping of settings by name")
    return values


def to_yaml(values: Any) -> str:
    """Write plain values as block-style YAML in the given order."""
    return _dumped(values, flow=False)


def in_line(value: Any) -> str:
    """Write a plain value as YAML in one line: `{name: pgd, steps: 5}`."""
    return _dumped(value, flow=True).removesuffix("...\n").strip()


class _Representer(SafeRepresenter):
    """Plain values; text that ruamel would read back as another is in quotes, with escapes."""

    def represent_str(self, data: str) -> Any:
        """Return the node of a text."""
        plain = data.isprintable() and not data.startswith(("?", ":"))
        style = None if plain else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Representer.add_representer(str, _Representer.represent_str)


def _dumped(values: Any, flow: bool) -> str:
    yaml, stream = YAML(typ="safe", pure=True), io.StringIO()
    yaml.Representer = _Representer
    yaml.default_flow_style = flow
    yaml.width = 1_000_000  # where it folds lines, blanks and tabs are lost
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(values, stream)
    return stream.getvalue()
