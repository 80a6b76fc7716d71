"""Mix of data sets: what training reads of each is a fixed share of every batch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, field_validator, model_serializer, model_validator

from cembench.data import DataSettings, datasets
from cembench.energy.threat import Threat
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.lazy import lazy_imports
from cembench.util.settings import Fraction, Settings

with lazy_imports():
    from cembench.data.split import Split, joined


class Part(Settings):
    """Part of a mix: a data set, and its share beside the keys of that.

    Attributes:
        data: the data set; its keys stand beside `share`, as in `{name: cifar10, share: 0.3}`.
        share: fraction of every batch. Parts without one divide what the others leave by their
            numbers of images.
    """

    data: SerializeAsAny[DataSettings]
    share: Annotated[Fraction, Field(gt=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return {"data": datasets.parse(values)}
        rest = {key: value for key, value in values.items() if key != "share"}
        return {"data": datasets.parse(rest), "share": values.get("share")}

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        return self.data.dump() | ({} if self.share is None else {"share": self.share})


class Mix(DataSettings):
    """Several data sets with the same classes, such as CIFAR-10 and images generated from it.

    The test split, the validation images, the pixel statistics, the augmentation, the customary
    threat model and the name in results are those of the first part. Training reads all parts, each
    pass after pass in an order of its own. An epoch has as many images as there are training images
    in the first part, unless `epoch_images` says otherwise: so count Rebuffi et al. (arXiv
    2103.01946) and Wang et al. (arXiv 2302.04638).

    Attributes:
        parts: the data sets, each with an optional `share` of every batch.
        crop: that of the first part; set it there.
        flip: that of the first part; set it there.
    """

    name: ClassVar[str] = "mix"
    parts: Annotated[list[Part], Field(min_length=2, max_length=100)]

    @model_validator(mode="before")
    @classmethod
    def _augmented_alike(cls, values: Any) -> Any:
        inherited = DataSettings.model_fields.keys() & (values if isinstance(values, dict) else ())
        if inherited:
            raise ConfigError.single("set it in the first part, for all", min(inherited))
        return values

    @model_serializer
    def _parts_alone(self) -> dict[str, Any]:
        return {"name": self.name, "parts": [part.dump() for part in self.parts]}

    @field_validator("parts")
    @classmethod
    def _no_mix(cls, parts: list[Part]) -> list[Part]:
        for number, part in enumerate(parts):
            if isinstance(part.data, Mix):
                raise ConfigError.single("a mix in a mix; list all parts in one", str(number))
        return parts

    @model_validator(mode="after")
    def _sum(self) -> Self:
        given = [part.share for part in self.parts if part.share is not None]
        total, all_given = math.fsum(given), len(given) == len(self.parts)
        if all_given and abs(total - 1) > 1e-6:
            raise ValueError(f"parts: their shares add up to {total:g}, not to 1; leave one out")
        if not all_given and total > 1 - 1e-9:
            raise ValueError(f"parts: shares of {total:g} leave nothing to the other parts")
        return self

    @property
    def members(self) -> tuple[DataSettings, ...]:
        """The data sets of the parts."""
        return tuple(part.data for part in self.parts)

    @property
    def title(self) -> str:
        """That of the first part, whose test images are attacked."""
        return self.members[0].title

    @property
    def threat(self) -> Threat:
        """That of the first part."""
        return self.members[0].threat

    @property
    def cautions(self) -> tuple[str, ...]:
        """Those of all parts."""
        return tuple(text for member in self.members for text in member.cautions)

    def moved(self, root: str | None) -> Self:
        """Return the same mix with its first part under another root."""
        first = self.parts[0]
        changed = first.model_copy(update={"data": first.data.moved(root)})
        return self.model_copy(update={"parts": [changed, *self.parts[1:]]})

    def resolved(self) -> Self:
        """Return the same mix with everything that identifies its parts."""
        parts = [part.model_copy(update={"data": part.data.resolved()}) for part in self.parts]
        return self.model_copy(update={"parts": parts})

    def shares(self, sizes: Sequence[int]) -> tuple[float, ...]:
        """Return the share of each part, of which the first images have so many."""
        given = [part.share for part in self.parts]
        rest = 1 - math.fsum(share for share in given if share is not None)
        open_ = sum(size for share, size in zip(given, sizes, strict=True) if share is None)
        return tuple(
            rest * size / open_ if share is None else share
            for share, size in zip(given, sizes, strict=True)
        )

    def load(self, split: Literal["train", "test"]) -> Split:
        """Read one split: the training images of all parts, or the test images of the first."""
        if split == "test":
            return self.members[0].load("test")
        parts = self.load_parts()
        return replace(joined(parts), known=self.fingerprint_of(parts))

    def load_parts(self) -> list[Split]:
        """Read the training images of each part.

        Raises:
            CembenchError: also when they do not fit together, naming the part.
        """
        first, *others = [member.load("train") for member in self.members]
        for number, (member, split) in enumerate(zip(self.members[1:], others, strict=True), 1):
            if getattr(member, "classes", ()) is None and split.classes == _numbers(split):
                split = others[number - 1] = replace(split, classes=first.classes, known=None)
            for what in ("shape", "levels", "classes"):
                theirs, ours = getattr(split, what), getattr(first, what)
                if theirs != ours:
                    raise CembenchError(
                        f"data.parts.{number}: {what} {theirs}, and {ours} in the first part; "
                        "a mix needs the same in all parts"
                    )
        return [first, *others]

    def fingerprint_of(self, parts: Sequence[Split]) -> str:
        """Return the fingerprint of the training images, from those of the parts and the shares."""
        each = [
            (split.fingerprint, part.share) for split, part in zip(parts, self.parts, strict=True)
        ]
        return hashlib.sha256(repr(each).encode()).hexdigest()


def _numbers(split: Split) -> tuple[str, ...]:
    return tuple(map(str, range(len(split.classes))))
