"""Sections of an evaluation: each file is one, with settings, result, columns and gate."""

from __future__ import annotations

from typing import Any

from cembench.evaluation.section import Section
from cembench.evaluation.sections.certify import CertifySection
from cembench.evaluation.sections.corruptions import CorruptionsSection
from cembench.evaluation.sections.counterfactuals import CounterfactualsSection
from cembench.evaluation.sections.curve import CurveSection
from cembench.evaluation.sections.density import DensitySection
from cembench.evaluation.sections.minimal import MinimalSection
from cembench.evaluation.sections.robustness import RobustnessSection
from cembench.evaluation.sections.samples import SamplesSection
from cembench.evaluation.sections.sanity import SanitySection
from cembench.evaluation.sections.threats import ThreatsSection
from cembench.util.settings import optional_field

ROBUSTNESS, SANITY, SAMPLES = RobustnessSection(), SanitySection(), SamplesSection()
DENSITY, CURVE = DensitySection(), CurveSection()
COUNTERFACTUALS, MINIMAL, THREATS = CounterfactualsSection(), MinimalSection(), ThreatsSection()
CORRUPTIONS, CERTIFY = CorruptionsSection(), CertifySection()

# In the order in which they are measured: energies need the samples.
SECTIONS: tuple[Section[Any, Any], ...] = (
    ROBUSTNESS,
    THREATS,
    MINIMAL,
    SANITY,
    SAMPLES,
    CURVE,
    DENSITY,
    COUNTERFACTUALS,
    CORRUPTIONS,
    CERTIFY,
)


def _field(section: Section[Any, Any], kind: Any, default: Any) -> tuple[Any, Any]:
    return kind, optional_field(default) if section.optional else default


SETTINGS: dict[str, Any] = {one.key: _field(one, *one.setting) for one in SECTIONS}
RESULTS: dict[str, Any] = {one.result_key: _field(one, *one.result) for one in SECTIONS}
