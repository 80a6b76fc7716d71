"""Sections of an evaluation: each file is one, with settings, result, columns and gate."""

from __future__ import annotations

from typing import Any

from cembench.evaluation.section import Section
from cembench.evaluation.sections.curve import CurveSection
from cembench.evaluation.sections.density import DensitySection
from cembench.evaluation.sections.robustness import RobustnessSection
from cembench.evaluation.sections.samples import SamplesSection
from cembench.evaluation.sections.sanity import SanitySection

ROBUSTNESS, SANITY, SAMPLES = RobustnessSection(), SanitySection(), SamplesSection()
DENSITY, CURVE = DensitySection(), CurveSection()

# In the order in which they are measured: energies need the samples.
SECTIONS: tuple[Section[Any, Any], ...] = (ROBUSTNESS, SANITY, SAMPLES, CURVE, DENSITY)


SETTINGS: dict[str, Any] = {section.key: section.setting for section in SECTIONS}
RESULTS: dict[str, Any] = {section.result_key: section.result for section in SECTIONS}
