"""What Python returns, in a console and in a notebook: records, boards, comparisons, pictures."""

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import cembench as cb
from cembench.util.errors import CembenchError
from tests.conftest import Linear, images
from tests.support.records import both, record

PGD = {"attacks": [{"name": "pgd", "steps": 2}], "limit": 24}
REFERENCE = Path(__file__).parents[2] / "leaderboards/reference/at"
X = (images(24) * 255).byte()
NET = Linear(64, 10)
Y = NET(X.float() / 255).argmax(1)


@pytest.fixture
def rows():
    return [both("low", 10, 2.0), both("high", 60, 1.0), record("none <b>", 5)]


def test_a_record_has_its_verdicts_images_and_charts(copy):
    found = cb.evaluate(copy, protocol=PGD, save_adversarial=True)
    verdicts = found.verdicts()
    broken = verdicts[verdicts["pgd_broken"]]
    assert len(verdicts) == 24 and found.figures["pgd"].correct <= 24 - len(broken)
    adversarial = found.adversarial("pgd")
    assert adversarial.rows.tolist() == broken["index"].tolist() and len(adversarial) > 0
    assert repr(adversarial) == f"<Adversarial {len(broken)} images of 1×8×8 by pgd>"
    assert adversarial._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(CembenchError, match="no attack 'pdg'; did you mean 'pgd'"):
        found.adversarial("pdg")
    picture = Image.open(io.BytesIO(found.plot()._repr_png_()))
    assert 300 < picture.width < 900
    with pytest.raises(CembenchError, match="has no chart 'acuracy'; did you mean 'accuracy'"):
        found.plot("acuracy")
    shutil.rmtree(next((copy.parent / "eval").glob("*.adversarial")))
    with pytest.raises(CembenchError, match="evaluate with save_adversarial=True"):
        found.adversarial("pgd")


def test_what_a_network_in_memory_leaves_is_kept_in_memory():
    given = {"threat": "linf 8/255", "trust_pixels": True}
    kept = cb.evaluate(NET, (X, Y), PGD, save_adversarial=True, **given)
    assert kept.adversarial("pgd").images.shape[1:] == (1, 8, 8)
    bare = cb.evaluate(NET, (X, Y), PGD, **given)
    assert bare.verdicts().equals(kept.verdicts()) and bare.figures["pgd"].images == 24
    with pytest.raises(CembenchError, match="its images were not kept; save_adversarial=True"):
        bare.adversarial("pgd")
    (difference, *_) = cb.compare(kept, bare)
    assert difference.figure == "clean" and difference.difference == 0


def test_a_comparison_is_a_table_and_a_data_frame():
    (first,) = REFERENCE.glob("eval/baseline-*.json")
    found = cb.compare(first, REFERENCE.with_name("trades"))
    assert found[0].figure == "clean" and len(repr(found).splitlines()) == len(found) + 1
    assert "<th>metric</th>" in found._repr_html_() and str(first) in found._repr_html_()
    assert list(found.to_frame()["figure"]) == [one.figure for one in found]
    assert found.shown()["metric"].tolist()[0] == "clean"


def test_boards_are_shown_and_are_data_frames_with_intervals(rows):
    boards = cb.leaderboard(rows)
    html = boards._repr_html_()
    assert html.count("<table>") == len(boards) and "<td>none &lt;b&gt;</td>" in html
    assert max(map(len, map(repr, boards))) < 250
    frame = boards.to_frame()
    assert list(frame.index) == ["high", "low", "none <b>"]
    assert list(frame.loc["high", "autoattack_acc"].index) == ["value", "low", "high"]
    assert frame["autoattack_acc", "value"].tolist() == [0.6, 0.1, 0.05]
    kid = "rcs-gaussian_lite0@64_n100_kid"
    assert frame[kid, "value"].tolist()[:2] == [1.0, 2.0] and frame[kid, "error"].iloc[0] == 0.1
    assert cb.leaderboard(rows[:1]).to_frame().shape[0] == 1 and cb.leaderboard([]).to_frame().empty


def test_means_over_seeds_have_intervals():
    seeds = [record(f"a.s{n}", 50 + n, seed=n, recipe="r") for n in range(3)]
    board = cb.leaderboard(seeds)[-1].to_frame()
    low, value, high = (board["autoattack_acc", end].iloc[0] for end in ("low", "value", "high"))
    assert low < value < high and value == pytest.approx(0.51)


def test_records_are_a_data_frame(tmp_path):
    frame = cb.records(REFERENCE.parent, "method == 'at' and clean > 0.5")
    assert len(frame) == 2 and frame["clean_acc"].dtype == float and "record" not in frame
    assert frame["seed"].tolist() == [0, 0] and frame["path"].str.startswith("reference/at").all()
    cb.records(REFERENCE, to=tmp_path / "records.parquet")
    again = cb.records(str(tmp_path / "records.parquet"))
    assert again["pgd_acc"].tolist() == cb.records([REFERENCE])["pgd_acc"].tolist()
    assert cb.records(REFERENCE, "clean > 2").empty
    assert isinstance(frame, pd.DataFrame)


def test_samples_give_a_picture_that_can_be_saved(tmp_path, copy):
    samples = cb.sample(copy, "rcs", 20, steps=1)
    picture = samples.grid()
    assert repr(picture) == str(picture) == "<PNG of {}×{} pixels>".format(*picture.size)
    assert Image.open(picture.save(tmp_path / "samples.png")).size == picture.size
    assert picture._repr_png_() == samples._repr_png_()


def test_verification_is_a_table():
    folder = REFERENCE.parents[1] / "frontier-jpeg"
    found = cb.verify(folder / "cifar10-jpeg-linf-8_255.csv", folder / "records.parquet")
    assert all(one.agrees for one in found) and "agrees" in repr(found)
    assert found._repr_html_().count("<tr>") == len(found) + 1


def test_a_record_without_a_file_says_what_it_lacks():
    with pytest.raises(CembenchError, match="its table of verdicts was not kept"):
        record("a").verdicts()
