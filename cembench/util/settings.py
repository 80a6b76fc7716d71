"""Settings: the strict base of everything that a user configures, and its error messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from cembench.util.errors import ConfigError
from cembench.util.files.names import file_name

LISTED = 30
_FRACTION = re.compile(r"\s*(-?\d+(?:\.\d*)?)\s*/\s*(\d+(?:\.\d*)?)\s*")


def fraction(value: Any) -> Any:
    """Turn the text `8/255` into a number and leave everything else to pydantic."""
    match = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    if float(match[2]) == 0:
        raise ValueError("division by zero")
    return float(match[1]) / float(match[2])


def _computable(value: float) -> float:
    """Refuse numbers that are zero or infinite in float32, in which networks compute."""
    if value and not 1e-37 <= abs(value) <= 1e37:
        raise ValueError("give 0, or a number between 1e-37 and 1e37")
    return value


NonNegative = Annotated[float, BeforeValidator(fraction), Field(ge=0), AfterValidator(_computable)]
Positive = Annotated[float, BeforeValidator(fraction), Field(gt=0), AfterValidator(_computable)]
Fraction = Annotated[float, BeforeValidator(fraction), Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, lt=2_147_483_648)]  # products of two fit into 64 bits
LabelUse = Literal["all", "probe", "none"]  # what training knew of the labels
Name = Annotated[str, AfterValidator(file_name)]  # of a file or folder
Label = Annotated[Name, Field(pattern=r"^[A-Za-z0-9_.+@-]+$", max_length=64)]  # of columns too


def optional_field(default: Any) -> Any:
    """Return a field that is dumped only when it is not its default.

    So a setting that one never touched does not tell experiments and protocols apart.
    """
    return Field(default, exclude_if=lambda value: value == default)


class Settings(BaseModel):
    """Immutable settings that refuse unknown keys, wrong types, infinities and NaN."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, ser_json_inf_nan="null"
    )

    @classmethod
    def parse(cls, values: Any) -> Self:
        """Validate what a YAML file said.

        Raises:
            ConfigError: naming every wrong key at any depth, its place and the nearest valid name.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise cls._worded(error) from None

    @model_validator(mode="wrap")
    @classmethod
    def _word_mistakes(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Word mistakes where the valid keys are known; enclosing settings add their places."""
        try:
            return handler(values)
        except ValidationError as error:
            raise cls._worded(error) from None

    @classmethod
    def _worded(cls, error: ValidationError) -> ConfigError:
        items = error.errors(include_url=False)
        return ConfigError([problem for item in items for problem in _problems(cls, item)])

    def dump(self) -> dict[str, Any]:
        """Return plain values that `parse` reads back."""
        return self.model_dump(mode="json")


class Choice(Settings):
    """Settings that a registry finds by name: a method, a model, a data set, an attack."""

    name: ClassVar[str]

    @model_serializer(mode="wrap")
    def _with_name(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"name": self.name, **handler(self)}


def nearest(word: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, else list them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    listed = ", ".join(known[:LISTED]) + more
    return f"did you mean '{close[0]}'?" if close else f"known: {listed}"


def _problems(
    cls: type[Settings], item: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what one error of pydantic stands for: the problems of a ConfigError, or itself."""
    place = tuple(str(part) for part in item["loc"])
    if place[-1:] == ("[key]",):  # the text says which key
        place = place[:-2]
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        yield from (((*place, *inner), text) for inner, text in cause.problems)
    elif item["type"] == "extra_forbidden":
        yield place, f"unknown key; {nearest(place[-1], cls.model_fields)}"
    elif item["type"] == "missing":
        yield place, "required, but not given"
    else:
        text = item["msg"].removeprefix("Value error, ").partition(" or instance of ")[0]
        about_keys = isinstance(item["input"], dict) and (cause is not None or not place)
        got = "" if about_keys else f", got {item['input']!r:.200}"
        yield place, f"{text[:1].lower()}{text[1:]}{got}"
