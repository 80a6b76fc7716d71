"""The page of all runs: nothing dropped, nothing half written."""

import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from cembench.evaluation.sections.samples import SamplerFigures
from cembench.reporting.leaderboard import build_boards
from cembench.reporting.page import page, write_report
from cembench.util.errors import CembenchError
from tests.support.pages import BARE, HOSTILE, encoder, leave
from tests.support.records import both, drawn, sampled, scores, touch


@pytest.fixture(scope="session")
def text(report):
    """The page of runs of every kind."""
    return report.read_text()


@pytest.fixture
def runs(kept, tmp_path):
    """A copy of these runs."""
    return Path(shutil.copytree(kept, tmp_path / "runs"))


@pytest.fixture
def hostile(kept, tmp_path):
    """A copy of those with odd names or errors, and of the encoder."""
    for name in ("failed", "infonce", "slash"):
        shutil.copytree(kept / name, tmp_path / "hostile" / name)
    return tmp_path / "hostile"


@pytest.fixture
def single(tmp_path):
    """A folder of one run."""
    leave(tmp_path / "single" / "run", **BARE)
    return tmp_path / "single"


class Read(HTMLParser):
    """What a browser would make of a page: its attributes and its text."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.text.append(data)


def test_the_command_writes_one_file_and_prints_its_path(cembench, tmp_path):
    leave(tmp_path / "run", **BARE)
    result = cembench("report", tmp_path / "run", "--out", tmp_path / "out")
    (file,) = (tmp_path / "out").iterdir()
    assert result.code == 0 and result.out == f"{file}\n" and file.name == "index.html"
    assert file.read_bytes() == write_report([tmp_path / "run"], tmp_path).read_bytes()


def test_every_run_is_on_the_page_and_those_in_doubt_are_marked(text):
    said = "".join(Read(text).text)
    assert text.count("<dialog") == 6 and "3 of 6 runs with warnings" in said
    for name in ("good", "doubtful", "early", "failed", "infonce", HOSTILE):
        assert said.count(name) > 1
    for mark in ("unfinished", "1 sanity check failed", "training diverged", "Square wins"):
        assert mark in said
    for figure in ("0.987", "25.0%", "± 0.25", "black_box_wins", "maxent-pooled"):
        assert figure in said
    assert text.count("<img") == 3 * 4 + 2


def test_the_page_allows_itself_nothing_but_its_own_script(text):
    (policy,) = [value for _, name, value in Read(text).attributes if "default-src" in str(value)]
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy
    assert re.search(r"script-src 'sha256-[\w+/]+='", policy)
    assert "http" not in re.sub(r"http://www\.w3\.org/\d+/svg", "", text.replace("http-equiv", ""))
    assert "innerHTML" not in text and "eval(" not in text


def test_cells_are_sorted_by_the_numbers_behind_them(text):
    assert 'data-number="0.07"' in text and 'data-number="nan"' in text
    assert re.search(r'data-number="0\.6"[^>]*>60\.0%<small>50\.2%–69\.1%</small>', text)


def test_boards_know_the_number_behind_each_cell_and_the_records_of_each_row():
    records = [both(f"at.s{seed}", 40, 1.0, recipe="r", seed=seed) for seed in range(2)]
    for board in build_boards(records):
        assert set(board.numbers) == set(board.shown) and set(board.numbers.values()) <= set(
            board.table
        )
        assert len(board.sources) == len(board.shown)
        assert all(record in records for row in board.sources for record in row)


def test_what_does_not_fit_is_named_and_leads_come_first(single, tmp_path, monkeypatch):
    leave(single / "other", 40, 2.0, **BARE)
    text = write_report([single], tmp_path / "whole").read_text()
    monkeypatch.setattr(page, "LIMIT", len(text.encode()) - 20_000)
    part = write_report([single], tmp_path / "part").read_text()
    left = re.findall(r"the page is full: <code>([^<]+\.png)</code>", part)
    assert len(part.encode()) <= page.LIMIT and len(left) > 0
    assert len(left) + part.count("<img") == text.count("<img")
    assert not [name for name in left if name.endswith("rcs-gaussian.png")]
    assert any(name.endswith(".trajectory.png") for name in left)
    monkeypatch.setattr(page, "LIMIT", 20_000)
    with pytest.raises(CembenchError, match="2 records are more than a page"):
        write_report([single], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_boards_of_others_stand_apart(single, tmp_path):
    (other, *_) = build_boards([both("theirs", 99, 0.1)])
    text = write_report([single], tmp_path, [other]).read_text()
    place = text.index("reported, not re-run")
    assert text.index('id="leaderboards"') < text.index('id="apart"') < place
    assert place < text.index('id="plane"')


def test_a_sampler_that_failed_is_marked(tmp_path):
    failed = SamplerFigures(sampler={"name": "rcs", "steps": 1}, start="noise", error="it left")
    samplers = {"rcs-gaussian": sampled("gaussian", 1.0), "rcs-noise": failed}
    leave(tmp_path / "run", generation=drawn(1.0, samplers=samplers), **BARE)
    text = write_report([tmp_path], tmp_path).read_text()
    assert "rcs-noise failed" in text and "it left" in text and text.count("<img") == 2


@pytest.mark.parametrize("without", [99, 1])
def test_runs_with_and_without_samples_share_a_page_and_charts(cembench, tmp_path, without):
    leave(tmp_path / "runs/draws", 50, 1.0, **BARE)
    leave(tmp_path / "runs/bare", without, generation=None, **BARE)
    assert cembench("report", tmp_path / "runs", "--out", tmp_path).code == 0
    done = cembench("plot", tmp_path / "runs", "--out", tmp_path / "plots", "--format", "svg")
    assert done.code == 0 and "digits-linf-0.125-plane.svg" in done.out
    plane = (tmp_path / "plots/digits-linf-0.125-plane.svg").read_text()
    assert "<!-- draws -->" in plane and "<!-- bare -->" not in plane


def test_a_lead_sampler_that_one_run_does_not_have_is_drawn_for_the_others(tmp_path):
    leave(tmp_path / "draws", 50, 1.0, **BARE)
    samplers = {"ta-noise": sampled("noise", 1.0)}
    leave(tmp_path / "other", 40, generation=drawn(1.0, samplers=samplers), **BARE)
    text = write_report([tmp_path], tmp_path).read_text()
    assert 'id="plane"' in text and "KID of rcs-gaussian" in text


def test_an_encoder_that_failed_is_on_no_board_and_still_on_the_page(cembench, tmp_path):
    encoder(tmp_path / "runs" / "lost", generation=None, error="embeddings are not finite")
    assert cembench("report", tmp_path / "runs", "--out", tmp_path).code == 0
    text = (tmp_path / "index.html").read_text()
    assert "1 of 1 run with warnings" in text and "embeddings are not finite" in text
    assert text.count("<dialog") == 1 and "<tbody>" not in text


def test_a_record_of_a_file_with_its_own_name_does_not_take_the_history_of_the_run(tmp_path):
    bare = {**BARE, "history": True}
    own = leave(tmp_path / "run", run="own", **bare)
    own.rename(own.with_name("own.standard.json"))
    assert 'id="training"' not in write_report([tmp_path], tmp_path).read_text()
    leave(tmp_path / "run", **bare)
    assert 'id="training"' in write_report([tmp_path], tmp_path).read_text()


@pytest.mark.parametrize("command", ["report", "plot"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda record: record.unlink(), "no records below"),
        (lambda record: record.write_text("{}"), "standard.json: not a record"),
    ],
)
def test_a_bad_record_is_one_line_and_leaves_nothing(
    cembench, single, tmp_path, command, spoil, message
):
    spoil(single / "run/eval/standard.json")
    result = cembench(command, single, "--out", tmp_path / "out")
    assert result.code == 2 and result.out == "" and result.err.count("\n") == 1
    assert message in result.err and not (tmp_path / "out").exists()


def test_a_record_of_a_later_version_says_so(cembench, runs, tmp_path):
    touch(runs / "good/eval/standard.json", ("format", 5), ("rotations", {}))
    result = cembench("report", runs, "--out", tmp_path / "out")
    assert result.code == 2 and not (tmp_path / "out").exists()
    assert "standard.json: record format 5 of a later cembench" in result.err
    assert "rotations: unknown key" in result.err


@pytest.mark.parametrize("command", ["report", "plot"])
def test_a_file_in_the_place_of_the_folder_is_left_alone(cembench, single, tmp_path, command):
    out = tmp_path / "out"
    out.write_text("mine")
    result = cembench(command, single, "--out", out)
    assert result.code == 2 and "choose another folder" in result.err
    assert out.read_text() == "mine"


def written(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_a_full_disk_is_named_and_the_old_page_stays(cembench, disk, single):
    out = disk.folder / "out"
    assert cembench("report", single, "--out", out).code == 0
    before = (out / "index.html").read_bytes()
    disk.fill()
    leave(single / "new", 30, 1.2, **BARE)
    for command in ("report", "plot"):
        result = cembench(command, single, "--out", out)
        assert result.code == 2 and "No space left on device; free some space" in result.err
    assert [path.name for path in out.iterdir()] == ["index.html"]
    assert (out / "index.html").read_bytes() == before


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_plots_are_files_the_same_each_time(cembench, hostile, tmp_path, form):
    if form != "png":  # of the encoder, once is enough
        shutil.rmtree(hostile / "infonce")
    results = [cembench("plot", hostile, "--out", tmp_path / n, "--format", form) for n in "ab"]
    assert [result.code for result in results] == [0, 0]
    first, second = (written(tmp_path / name) for name in "ab")
    assert first == second and len(results[0].out.splitlines()) == len(first)
    kinds = {path.name.removeprefix("digits-linf-0.125-").partition(".")[0] for path in first}
    assert {"plane", "curves", "energies", "calibration", "digits-classifier-training"} <= kinds
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert all(c.startswith(starts[form]) for p, c in first.items() if p.suffix == f".{form}")
    assert sum("samples" in path.parts for path in first) == 4 + 2 * (form == "png")
    if form == "png":
        for content in first.values():
            with Image.open(io.BytesIO(content)) as image:
                assert image.width > 200


def test_two_runs_of_one_name_are_two_lines_and_two_files(cembench, tmp_path):
    for number, folder in enumerate("ab"):
        own = {"checkpoint_sha256": folder, "density": None, "history": False}
        leave(tmp_path / folder / "at", 10 + number, **own)
    result = cembench("plot", tmp_path, "--out", tmp_path / "out", "--format", "svg")
    assert result.code == 0 and len(list((tmp_path / "out/samples").iterdir())) == 8
    text = write_report([tmp_path], tmp_path).read_text()
    assert "at (2)" in text and text.count("<dialog") == 2


def test_the_command_line_starts_without_what_draws():
    drawing = "{'matplotlib', 'jinja2', 'torch', 'pandas'}"
    code = f"import sys, cembench.cli; print({drawing} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_scores_are_shown_with_their_controls(text):
    said = "".join(Read(text).text)
    assert "rcs-gaussian: initial images" in said and "real images" in said
    assert f"{scores(1.5).fd:.4g}" in said
