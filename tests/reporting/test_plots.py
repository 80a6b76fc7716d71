"""Charts: honest at their edges, the same for everybody, and names stay names."""

import itertools
from dataclasses import replace

import matplotlib
import pandas as pd
import pytest

from cembench.evaluation.sections import density_charts as density
from cembench.evaluation.sections.curve import CurvePoint
from cembench.evaluation.statistics import MeanStd, wilson
from cembench.reporting.page.training import training
from cembench.reporting.plots import curves
from cembench.reporting.plots.draw import draw
from cembench.reporting.plots.style import NAMED, render
from cembench.util.display.charts import Axis, Chart, Point, Scatter
from tests.support.records import record

POINT = Point("a", x=1.0, x_low=0.8, x_high=1.2, y=0.5, y_low=0.4, y_high=0.6, front=True)


def chart(*panels, columns=1):
    return Chart("kind", "heading", "caption", panels, columns)


def drawn(points):
    y = Axis("AutoAttack accuracy", percent=True)
    return draw(chart(Scatter(points, Axis("KID"), y, {"seeds": 1.2})))


def curve(correct, images):
    low, high = wilson(correct, images)
    return [CurvePoint(eps=e, correct=correct, images=images, low=low, high=high) for e in (0, 0.1)]


@pytest.mark.parametrize("images", [1, 4, 69, 75])
@pytest.mark.parametrize("all_stand", [False, True])
def test_nothing_and_everything_can_be_drawn(images, all_stand):
    correct = images * all_stand
    low, high = wilson(correct, images)  # rounding leaves it a hair off 0 and 1
    assert render(drawn([replace(POINT, y=float(all_stand), y_low=low, y_high=high)]), "png")
    assert render(curves.radii({"a": curve(correct, images)}, 0.1), "png")


def test_labels_keep_off_each_other_and_those_of_the_front_come_first():
    crowd = [replace(POINT, name=f"run {n}", x=1 + n / 500, front=n < 3) for n in range(40)]
    figure = drawn(crowd)
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if text.get_text().startswith("run")]
    assert {"run 0", "run 1", "run 2"} <= {text.get_text() for text in texts}
    assert len(texts) < len(crowd)
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


NAMES = ["$x$", "\\frac{1}{2}", "<b>&", "\x00\n\x1b", "漢字", "%s{}", "_a"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_neither_a_formula_nor_markup(name):
    text = render(drawn([replace(POINT, name=name)]), "svg", "page").decode()
    shown = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in shown)
    assert f">{shown}</text>" in text
    curves_of = {name: curve(5, 10), "other": curve(5, 10)}
    assert f">{shown}</text>" in render(curves.radii(curves_of, 0.1), "svg", "page").decode()


def test_long_names_are_cut_and_more_lines_than_can_be_told_apart_have_no_legend():
    many = {f"{n}{'x' * 100}": curve(5, 10) for n in range(NAMED + 1)}
    assert not curves.radii(many, 0.1).legends
    few = curves.radii(dict(itertools.islice(many.items(), 3)), 0.1)
    (legend,) = few.legends
    assert max(len(text.get_text()) for text in legend.get_texts()) < 30


def test_what_the_user_set_for_other_plots_changes_nothing():
    before = render(drawn([POINT]), "svg")
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "text.usetex": True}):
        assert render(drawn([POINT]), "svg") == before


def test_the_curve_of_a_record_is_a_picture_beside_it(tmp_path):
    points = curve(5, 10)
    path = curves.write_curve(tmp_path / "quick.json", record("a", curve=points))
    assert path == tmp_path / "quick.curve.png" and path.read_bytes()[:4] == b"\x89PNG"
    drawn = curves.radii({"a": points}, 0.125, "a, digits, linf")
    assert path.read_bytes() == render(drawn, "png")
    assert curves.write_curve(tmp_path / "none.json", record("a")) is None
    assert [file.name for file in tmp_path.iterdir()] == ["quick.curve.png"]


def test_losses_of_any_size_and_epochs_without_figures_are_drawn():
    wild = pd.DataFrame({"epoch": [1, 2, 3], "loss": [1.0, -3e9, float("inf")]})
    wild["val_pgd_acc"] = [0.5, float("nan"), 0.7]
    short = pd.DataFrame({"epoch": [1.0], "loss": [2.0]})
    assert render(draw(*training({"wild": wild, "short": short})), "png")


def test_epochs_without_validation_do_not_break_its_line():
    known = pd.DataFrame({"epoch": [1, 2, 3], "loss": [3.0, 2.0, 1.0]})
    known["val_clean_acc"] = [0.5, float("nan"), 0.7]
    figure = draw(*training({"a": known}))
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [1, 3] and list(line.get_ydata()) == [50, 70]


def test_energies_are_told_from_the_mean_on_clean_images():
    spreads = {
        "clean": MeanStd(mean=7.0, std=1.0, images=9),
        "ta": MeanStd(mean=5, std=1, images=9),
    }
    found = {"a": spreads, "b": {"ta": MeanStd(mean=5.0, std=1.0, images=9)}}
    figure = draw(chart(*(density.energies(*one) for one in found.items()), columns=3))
    dots = [[float(line.get_xdata()[0]) for line in axes.lines[2::2]] for axes in figure.axes]
    assert dots == [[0.0, -2.0], [5.0]]
