"""The site: its pages are there, lead only to each other, and say what the boards say."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest

from cembench.evaluation.record.acceptance import Acceptance
from cembench.evaluation.record.files import load_record
from cembench.reporting.leaderboard import build_boards, find_records
from cembench.reporting.page.charts import charts
from cembench.reporting.page.runs import gather
from cembench.reporting.site import build as build_module
from cembench.reporting.site import group_pages
from cembench.reporting.site.groups import summary
from cembench.reporting.site.names import page_name
from cembench.util.files import sha256
from tests.support.links import broken, pages
from tests.support.many import many
from tests.support.pages import BARE, HOSTILE, leave
from tests.support.records import PLAN

LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"
PAGE = re.compile(r"[a-z0-9._-]+")


def build(cembench, *paths, out, images=0):
    return cembench("site", *paths, "--out", out, "--images", images)


def written(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def small(tmp_path):
    """A folder of two runs."""
    for number, name in enumerate("ab"):
        leave(tmp_path / "runs" / name, 40 + number, 1.0 + number, **BARE)
    return tmp_path / "runs"


def test_every_link_of_the_site_leads_to_a_place_of_it(site):
    assert broken(site) == []
    found = pages(site)
    kinds = {file.relative_to(site).parts[0] for file in found}
    assert kinds == {"index.html", "sets", "runs", "methods", "tables"}
    for file in found:
        assert all(PAGE.fullmatch(part) for part in file.relative_to(site).parts)


def test_every_run_has_a_page_with_what_the_report_shows(site):
    texts = ["".join(page.text) for file, page in pages(site).items() if "runs" in file.parts]
    assert len(texts) == 8
    for words in ("training diverged", "Square wins", "maxent-pooled", "0.987", "Full protocol"):
        assert any(words in text for text in texts)
    records = [load_record(file) for file in (site / "runs").glob("*/record.json")]
    assert {"good", "failed", HOSTILE, "at"} <= {record.run for record in records}
    assert len(list(site.glob("runs/*/images.png"))) == 2


def test_boards_lie_beside_their_page_as_numbers(site, kept, attacked):
    found = find_records([kept, attacked]).values()
    (board, *_) = build_boards([r for r in found if str(r.threat) == "linf-0.125"])
    folder = site / "sets/digits-linf-0.125"
    file = folder / f"{board.stem}.json"
    assert file.with_suffix(".csv").read_text() == board.csv()
    data = json.loads(file.read_text())
    assert data["title"] == board.title
    assert [column["name"] for column in data["columns"]] == list(board.table.columns)
    for row, expected in zip(data["rows"], board.table.to_dict("records"), strict=True):
        for name, value in expected.items():
            empty = isinstance(value, float) and math.isnan(value)
            assert row[name] == (None if empty else value)
    (clean,) = [one for one in data["columns"] if one["name"] == "clean_acc"]
    assert clean["low"] == "clean_acc_low" and "proportion" in clean["about"]
    place = (folder / data["pages"][0][0].partition("#")[0]).resolve()
    assert place.is_file() and place.is_relative_to(site.resolve())


def test_a_run_knows_its_place_on_the_boards(site):
    (folder,) = [f.parent for f in site.glob("runs/*/record.json") if load_record(f).run == "good"]
    (row, *_) = json.loads((folder / "row.json").read_text())
    assert row["row"]["run"] == "good" and 1 <= row["place"] <= row["of"]
    assert f"{row['place']} of {row['of']}" in (folder / "index.html").read_text()


def test_nothing_that_somebody_named_becomes_markup_or_leaves_the_page(site):
    for page in pages(site).values():
        assert page.elements.count("script") == 1 and "i" not in page.elements
        assert not any(name.startswith("on") for _, name, _ in page.attributes)
        (policy,) = [v for _, name, v in page.attributes if name == "content" and "default" in v]
        assert "default-src 'none'" in policy and "script-src file: 'self'" in policy
        assert "unsafe-eval" not in policy and "http" not in policy
    assert HOSTILE in "".join(pages(site)[site / "sets/digits-linf-0.125/index.html"].text)
    assert "<" not in (site / "search.js").read_text().replace(json.dumps(HOSTILE), "")


def test_a_method_says_what_it_is_and_has_all_its_runs(site):
    text = "".join(pages(site)[site / "methods/at/index.html"].text)
    assert "arXiv 1706.06083" in text and "good" in text and "digits, linf-0.125" in text
    (other,) = [f for f in site.glob("methods/*") if f.name.startswith("a-b-")]
    assert "cembench has no method of this name" in (other / "index.html").read_text()
    runs = json.loads((site / "methods/at/runs.json").read_text())["runs"]
    assert "good" in [run["run"] for run in runs] and runs[0]["accuracies"]["clean"] <= 1


def leave_measured_in_ways(folder):
    """Leave runs that were measured in three ways, the best one on validation images."""
    ways = {"val": "validation", "full": "test", "brief": "test"}
    for number, (name, split) in enumerate(ways.items()):
        way = {"split": split, "protocol_digest": name, "protocol": {**PLAN, "name": name}}
        for seed in range(2):
            run = f"{name}-{seed}"
            leave(folder / run, 80 - 10 * number - seed, seed=seed, **way, **BARE)


def test_runs_measured_differently_are_not_compared(cembench, tmp_path):
    leave_measured_in_ways(tmp_path / "runs")
    assert build(cembench, tmp_path / "runs", out=tmp_path / "site").code == 0
    first = re.search(r'class="best">.*?</dl>', (tmp_path / "site/index.html").read_text(), re.S)
    assert "brief-0" in first[0] and "of protocol brief, 100 test images" in first[0]
    text = (tmp_path / "site/methods/at/index.html").read_text()
    tables = re.findall(r"<figure.*?</figure>", text, re.S)
    runs = [set(re.findall(r">((?:val|full|brief)-\d)<", table)) for table in tables]
    assert sorted(map(sorted, runs)) == [[f"{w}-0", f"{w}-1"] for w in ("brief", "full", "val")]


def test_what_was_accepted_unseen_is_marked(cembench, small, tmp_path):
    record = small / "a/eval/standard.json"
    mark = Acceptance(name="a", outcome="not re-run", record_sha256=sha256(record))
    (small / "a/accepted.json").write_text(json.dumps(mark.dump()))
    assert build(cembench, small, out=tmp_path / "site").code == 0
    texts = [file.read_text() for file in (tmp_path / "site/runs").glob("*/index.html")]
    assert sorted("not re-run" in text for text in texts) == [False, True]
    for page in ("index.html", "methods/at/index.html", "sets/digits-linf-0.125/index.html"):
        assert (">not re-run<" in (tmp_path / "site" / page).read_text()) == (page != "index.html")


def test_tables_without_records_are_pages_of_data(site):
    folder = site / "tables" / "orderings--digits-linf-0.125"
    source = LEADERBOARDS / "orderings/digits-linf-0.125.csv"
    assert (folder / source.name).read_bytes() == source.read_bytes()
    data = json.loads((folder / "digits-linf-0.125.json").read_text())
    assert data["records"] is False
    assert len(data["rows"]) == len(source.read_text().splitlines()) - 1
    row = data["rows"][0]
    assert isinstance(row["clean_acc"], float) and isinstance(row["seed"], int)
    assert isinstance(row["weights_sha256"], str)
    page = pages(site)[folder / "index.html"]
    assert "a table without records" in "".join(page.text) and page.elements.count("tr") > 10


def test_a_single_table_is_enough(cembench, tmp_path):
    table = LEADERBOARDS / "orderings/digits-linf-0.125.csv"
    assert build(cembench, table, out=tmp_path / "site").code == 0
    assert (tmp_path / "site/tables/digits-linf-0.125/index.html").is_file()
    assert not (tmp_path / "site/sets").exists() and broken(tmp_path / "site") == []


def test_rows_of_a_table_lead_to_runs_whose_records_are_there(cembench, attacked, tmp_path):
    assert cembench("leaderboard", attacked, "--out", tmp_path / "in/tables").code == 0
    (table, *_) = sorted((tmp_path / "in/tables").glob("*linf*.csv"))
    lines = table.read_text().splitlines()
    known = [load_record(file).weights_sha256 for file in attacked.glob("*/eval/*.json")]
    other = re.sub("|".join(known), "f", lines[1])
    table.write_text("\n".join([*lines, other]) + "\n")
    assert build(cembench, attacked, tmp_path / "in", out=tmp_path / "site").code == 0
    (folder,) = (tmp_path / "site/tables").iterdir()  # the other tables say what the boards say
    data = json.loads((folder / f"{table.stem}.json").read_text())
    assert [len(row) for row in data["pages"]] == [1, 1, 0]
    assert broken(tmp_path / "site") == []


def test_a_second_build_writes_nothing_and_removes_what_it_wrote_before(cembench, small, tmp_path):
    out = tmp_path / "site"
    assert build(cembench, small, out=out).code == 0
    before, times = written(out), {f: f.stat().st_mtime_ns for f in out.rglob("*.html")}
    (out / "CNAME").write_text("mine")
    (out / "runs/notes.txt").write_text("mine")
    assert build(cembench, small, out=out).code == 0
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.html")} == times
    shutil.rmtree(small / "b")
    assert build(cembench, small, out=out).code == 0
    after = written(out)
    assert after.pop("CNAME") == after.pop("runs/notes.txt") == b"mine"
    gone = {name.split("/")[1] for name in before.keys() - after.keys()}
    assert len(gone) == 1 and len(list((out / "runs").glob("*/index.html"))) == 1
    assert not [f for f in out.rglob("*") if f.is_dir() and not any(f.iterdir())]
    assert broken(out) == []


@pytest.mark.parametrize("name", ["index.html", "site-files.txt"])
def test_files_of_others_are_not_replaced(cembench, small, tmp_path, name):
    out = tmp_path / "site"
    out.mkdir()
    (out / name).write_text("mine")
    result = build(cembench, small, out=out)
    assert result.code == 2 and "choose another folder" in result.err
    assert (out / name).read_text() == "mine"


def test_a_list_of_files_cannot_name_one_outside(cembench, small, tmp_path):
    out, other = tmp_path / "site", tmp_path / "other.txt"
    assert build(cembench, small, out=out).code == 0
    other.write_text("mine")
    with (out / "site-files.txt").open("a") as file:
        file.write(f"../other.txt\n{other}\n")
    assert build(cembench, small, out=out).code == 0 and other.read_text() == "mine"
    shutil.rmtree(out / "runs")
    (tmp_path / "elsewhere").mkdir()
    (out / "runs").symlink_to(tmp_path / "elsewhere")
    assert build(cembench, small, out=out).code == 2
    assert not any((tmp_path / "elsewhere").iterdir())


def test_names_of_pages_are_safe_distinct_and_the_same_each_time():
    assert page_name("digits-linf-0.125") == "digits-linf-0.125"
    names = ["At", "AT", "at", "at ", "ät", "..", "../at", "", "con", "CON", "a/b", "a_b", "a b"]
    names += ["名", "<b>", "x" * 300, "at-0123456789ab", "e\u0301", "\u00e9"]
    made = [page_name(name) for name in names]
    assert len({name.casefold() for name in made}) == len(names)
    assert all(PAGE.fullmatch(name) and len(name) < 80 and name[0] not in "-." for name in made)
    assert made == [page_name(name) for name in names]
    assert page_name("at", "digits") != page_name("at", "cifar10")


def test_odd_names_make_pages_inside_the_folder_alone(cembench, tmp_path):
    for number, name in enumerate(["..", "../../out", "At", "at", "at", "a\x00b", "名"]):
        more = {"run": name, "checkpoint_sha256": str(number), "dataset": "../d"}
        leave(tmp_path / "runs" / str(number), 40 + number, **more, **BARE)
    before = set(tmp_path.rglob("*"))
    assert build(cembench, tmp_path / "runs", out=tmp_path / "site").code == 0
    new = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "site") for path in new)
    assert len(list((tmp_path / "site/runs").iterdir())) == 7
    assert broken(tmp_path / "site") == []


def test_a_full_disk_is_named_and_the_earlier_site_stays(cembench, disk, small):
    out = disk.folder / "site"
    assert build(cembench, small, out=out).code == 0
    before = (out / "index.html").read_bytes()
    disk.fill()
    leave(small / "new", 30, 1.2, **BARE)
    result = build(cembench, small, out=out)
    assert result.code == 2 and "free some space" in result.err
    assert (out / "index.html").read_bytes() == before and broken(out) == []


def test_a_killed_build_leaves_the_earlier_site_and_nothing_for_ever(
    cembench, small, tmp_path, monkeypatch
):
    out = tmp_path / "site"
    assert build(cembench, small / "a", out=out).code == 0
    index = (out / "index.html").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(build_module, "_write_index", lambda *_: 1 / 0)
        assert build(cembench, small, out=out).code == 2
    assert (out / "index.html").read_bytes() == index and broken(out) == []
    assert len(list((out / "runs").iterdir())) == 2
    assert build(cembench, small / "a", out=out).code == 0
    assert len(list((out / "runs").iterdir())) == 1 and broken(out) == []


def test_a_damaged_picture_is_named_and_costs_nothing_else(cembench, small, tmp_path, caplog):
    picture = next((small / "a/samples").glob("*.png"))
    picture.write_bytes(picture.read_bytes()[:200])
    (small / "b/history.csv").write_text("epoch,loss\n1")
    result = build(cembench, small, out=tmp_path / "site")
    assert result.code == 0 and caplog.text.count("damaged picture") == 1
    texts = [file.read_text() for file in (tmp_path / "site/runs").glob("*/index.html")]
    assert sum("damaged picture" in text for text in texts) == 1
    assert sum("cut off" in text for text in texts) == 1
    assert broken(tmp_path / "site") == []


def test_mistakes_are_one_line_and_leave_nothing(cembench, small, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "empty", "no records"), (tmp_path / "none", "no records")):
        result = build(cembench, path, out=tmp_path / "site")
        assert result.code == 2 and result.err.count("\n") == 1 and words in result.err
    (small / "a/eval/standard.json").write_text("{}")
    result = build(cembench, small, out=tmp_path / "site")
    assert result.code == 2 and "standard.json: not a record" in result.err
    assert not (tmp_path / "site").exists()


def test_a_damaged_table_is_named_on_the_index(cembench, small, tmp_path, caplog):
    (small / "tables").mkdir()
    (small / "tables/bad.csv").write_text("run,method\na,at\nb\n")
    (small / "tables/other.csv").write_text("name,value\na,1\n")
    result = build(cembench, small, out=tmp_path / "site")
    assert result.code == 0 and "bad.csv: not readable" in caplog.text
    assert "bad.csv: not readable" in (tmp_path / "site/index.html").read_text()
    assert not (tmp_path / "site/tables").exists()


def test_a_collection_of_records_is_enough(cembench, small, tmp_path):
    collection = tmp_path / "records.parquet"
    assert cembench("records", small, "--to", collection).code == 0
    assert build(cembench, collection, out=tmp_path / "site").code == 0
    assert len(list((tmp_path / "site/runs").glob("*/index.html"))) == 2
    text = (tmp_path / "site/sets/digits-linf-0.125/index.html").read_text()
    assert "2 of 2 runs are from a collection of records: their images" in text
    assert (
        not list((tmp_path / "site/runs").glob("*/samples/*.webp"))
        and broken(tmp_path / "site") == []
    )


def test_charts_of_many_runs_say_which_are_drawn(tmp_path):
    runs = [run for run in gather([many(tmp_path, 6)]) if str(run.record.threat) == "linf-0.125"]
    assert len(runs) == 2
    for one in charts(runs, 1):
        if one.chart.table:
            assert len(one.chart.table.rows) == 2
        else:
            assert "Drawn: the first 1 of 2 runs" in one.chart.caption
    assert all("Drawn" not in one.chart.caption for one in charts(runs, 2))


def test_a_long_table_says_that_its_files_have_all_rows(kept, monkeypatch):
    monkeypatch.setattr(group_pages, "ROWS", 2)
    runs = gather([kept])
    cut = group_pages.cut(summary("all", runs))
    assert len(cut.table.rows) == len(cut.runs) == 2
    assert cut.table.note == f"Shown: the first 2 of {len(runs)} rows; the files have all."


@pytest.mark.slow
def test_hundreds_of_runs_are_a_site_of_small_pages(cembench, tmp_path):
    assert build(cembench, many(tmp_path / "runs", 500), out=tmp_path / "site").code == 0
    assert broken(tmp_path / "site") == []
    assert max(file.stat().st_size for file in (tmp_path / "site").rglob("*.html")) < 5_000_000
