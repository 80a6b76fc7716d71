"""Accuracy at rising radii: what is broken stays broken, and closed forms are met."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cembench.attacks.pgd import PGDAttack
from cembench.energy.threat import Threat
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.sections.curve import points
from cembench.reporting.plots import curves
from cembench.reporting.plots.curves import write_curve
from cembench.reporting.plots.style import render
from cembench.util.errors import ConfigError
from tests.conftest import NOTHING
from tests.support.attacks import linear_case, run


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_each_image_breaks_at_the_first_radius_beyond_its_distance(norm):
    model, split, distance = linear_case(2, norm)
    radii = np.quantile(distance.numpy(), [0.1, 0.4, 0.7, 0.9]).tolist()
    plan = {"eps": radii, "attack": {"name": "pgd", "steps": 40}}
    table = run(model, split, Threat(norm=norm, eps=radii[1]), "pgd", curve=plan)
    apart = np.abs(distance.numpy()[:, None] / np.array(radii) - 1).min(1)
    expected = np.array([next((r for r in radii if r > d), np.nan) for d in distance.tolist()])
    clear = apart > 0.02
    assert clear.sum() > 20
    np.testing.assert_array_equal(table["curve_eps"][clear], expected[clear])


def test_an_image_that_was_broken_is_not_attacked_again(monkeypatch):
    model, split, distance = linear_case(4, "linf")
    radii = np.quantile(distance.numpy(), [0.3, 0.5, 0.8]).tolist()
    asked, search = [], PGDAttack.search

    def counted(self, network, x, y, context, verifier):
        asked.append((context.threat.eps, len(x)))
        return search(self, network, x, y, context, verifier)

    monkeypatch.setattr(PGDAttack, "search", counted)
    threat = Threat(norm="linf", eps=radii[1])
    table = run(model, split, threat, {"name": "pgd", "steps": 20}, curve={"eps": radii})
    main, *rest = asked
    assert main == (radii[1], 48) and [eps for eps, _ in rest] == radii
    broken = int(table["pgd_broken"].sum())
    assert rest[0][1] >= 48 - broken and rest[1][1] <= 48 - broken and rest[2][1] <= rest[1][1]


def test_points_are_counts_and_never_rise():
    table = pd.DataFrame({"curve_eps": [0.0, 0.1, 0.2, np.nan]})
    curve = points(table, [0.1, 0.2, 0.3])
    assert [(p.eps, p.correct) for p in curve] == [(0.0, 3), (0.1, 2), (0.2, 1), (0.3, 1)]
    assert all(p.images == 4 and p.low < p.accuracy < p.high for p in curve)


def test_a_record_has_the_curve_and_a_picture_of_it(copy):
    plan = load_protocol("quick", [*NOTHING, "attacks=[{name: pgd, steps: 4}]", "curve={}"], 64)
    record, path = evaluate(copy, plan, on_record=write_curve)
    eps = record.threat.eps
    assert [point.eps / eps for point in record.curve] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2]
    shares = [point.correct for point in record.curve]
    assert shares == sorted(shares, reverse=True) and shares[0] == record.figures["clean"].correct
    assert record.curve[4].correct <= record.figures["pgd"].correct
    drawn = Image.open(path.with_suffix(".curve.png"))
    assert drawn.width > 400 and len(np.unique(drawn.convert("L"))) > 20


def test_a_picture_is_the_same_each_time():
    curve = points(pd.DataFrame({"curve_eps": [0.1, np.nan]}), [0.1])
    first, second = (render(curves.radii({"a": curve}, 0.1), "png") for _ in range(2))
    assert first == second and Image.open(io.BytesIO(first)).format == "PNG"


@pytest.mark.parametrize("eps", ["[0.2, 0.1]", "[0.1, 0.1]", "[]", "1"])
def test_radii_must_rise(eps):
    with pytest.raises(ConfigError, match=r"curve\.eps"):
        load_protocol("quick", [f"curve={{eps: {eps}}}"])


def test_a_ball_of_radius_zero_has_no_curve():
    model, split, _ = linear_case(3, "linf")
    table = run(model, split, Threat(norm="linf", eps=0), curve={})
    assert len(points(table, [])) == 1 and torch.tensor(table["curve_eps"]).isnan().all()
