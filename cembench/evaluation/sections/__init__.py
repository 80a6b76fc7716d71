"""Sections of an evaluation: each file is one, with settings, result, columns and gate."""

from __future__ import annotations

from typing import Any

from pydantic import create_model

from cembench.evaluation.section import Section
from cembench.evaluation.sections.curve import CurveSection
from cembench.evaluation.sections.density import DensitySection
from cembench.evaluation.sections.robustness import RobustnessSection
from cembench.evaluation.sections.samples import SamplesSection
from cembench.evaluation.sections.sanity import SanitySection
from cembench.util.settings import Settings

ROBUSTNESS, SANITY, SAMPLES = RobustnessSection(), SanitySection(), SamplesSection()
DENSITY, CURVE = DensitySection(), CurveSection()

# In the order in which they are measured: energies need the samples.
SECTIONS: tuple[Section[Any, Any], ...] = (ROBUSTNESS, SANITY, SAMPLES, CURVE, DENSITY)


def with_settings(base: type[Settings]) -> Any:
    """Return a protocol's base with a key for each section."""
    fields: dict[str, Any] = {section.key: section.setting for section in SECTIONS}
    return create_model(base.__name__, __base__=base, **fields)


def with_results(base: type[Settings]) -> Any:
    """Return a record's base with a key for each section."""
    fields: dict[str, Any] = {section.result_key: section.result for section in SECTIONS}
    return create_model(base.__name__, __base__=base, **fields)
