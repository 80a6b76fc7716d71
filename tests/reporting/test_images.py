"""Images of a run on the page: those that were kept, as the table of verdicts has them."""

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from cembench.data import datasets
from cembench.data.split import fixed_permutation
from cembench.evaluation.record.files import load_record, load_table
from cembench.reporting.page import write_report
from cembench.reporting.page.images import COLUMNS, load_sheet, remove_outdated
from cembench.util.display.cells import EDITED, chain_cells, edited_cells, grid_cells
from cembench.util.display.image_grid import strips
from cembench.util.errors import CembenchError
from cembench.util.files.tensors import read_tensors
from tests.support.pages import BARE, leave
from tests.support.records import touch

NAME = "baseline-e1e984"


@pytest.fixture(scope="module")
def record(attacked):
    return attacked / "at" / "eval" / f"{NAME}.json"


def sheet(path, count=64):
    return load_sheet(path, load_record(path), "run-0", count)


def pixels(sheet, number):
    width, height = sheet.facts["size"]
    left, top = number % COLUMNS * width, number // COLUMNS * height
    with Image.open(io.BytesIO(sheet.png)) as whole:
        return list(whole.crop((left, top, left + width, top + height)).tobytes())


def test_images_are_a_fixed_choice_with_the_verdicts_of_the_table(record):
    made, table = sheet(record), load_table(record)
    chosen = table.iloc[sorted(fixed_permutation(len(table))[:64].tolist())]
    assert [image[0] for image in made.facts["images"]] == chosen["index"].tolist()
    assert [image[2] for image in made.facts["images"]] == chosen["clean_pred"].tolist()
    for number, attack in enumerate(made.facts["attacks"]):
        entries = [image[4 + number] for image in made.facts["images"]]
        assert [entry is not None for entry in entries] == chosen[f"{attack}_broken"].tolist()
        for entry, (_, row) in zip(entries, chosen.iterrows(), strict=True):
            if entry is not None:
                assert entry[1] == row[f"{attack}_by"] and entry[7] == row[f"{attack}_broken_8bit"]
                assert entry[2] != row["label"] or not entry[7]
                assert entry[4] == pytest.approx(row[f"{attack}_norm"], rel=1e-3)
    assert "64 of 192 attacked images: a fixed random choice" in made.facts["rule"]


def test_a_sheet_holds_the_clean_and_the_adversarial_bytes(record):
    made = sheet(record)
    split = datasets.parse({"name": "digits"}).load("test")
    place, image = next((n, i) for n, i in enumerate(made.facts["images"]) if i[5])
    clean = (split.pixels(slice(image[0], image[0] + 1)) * 255).round().int().flatten().tolist()
    assert pixels(made, place) == clean
    kept = read_tensors(record.with_suffix(".adversarial") / "pgd.safetensors")
    row = kept["rows"].tolist().index(image[0])
    assert pixels(made, image[5][0]) == kept["bytes"][row].flatten().tolist()


class Images(HTMLParser):
    """The figures of each run's images on a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found += [json.loads(value) for name, value in attrs if name == "data-images"]


def test_the_page_holds_as_many_images_as_were_asked_for(cembench, attacked, explorer, tmp_path):
    both = Images(explorer.read_text()).found
    assert [len(one["images"]) for one in both] == [64, 64]
    assert both[0]["group"] == both[1]["group"]
    assert cembench("report", attacked, "--out", tmp_path, "--images", "5").code == 0
    few = Images((tmp_path / "index.html").read_text()).found
    assert [len(one["images"]) for one in few] == [5, 5]


def test_a_run_without_kept_images_says_how_to_keep_them(tmp_path):
    leave(tmp_path / "run", **BARE)
    text = write_report([tmp_path], tmp_path / "out").read_text()
    assert text.count("No adversarial images were kept; <code>cembench eval RUN --save-adv") == 1


def test_sheets_without_room_lie_beside_the_page(explorer, scarce):
    whole, part = explorer.read_text(), scarce.read_text()
    (name,) = re.findall(r'src="(images/run-\d+-\w+\.png)"', part)
    assert len(part) < len(whole) and "img-src data: file: 'self'" in part
    assert "img-src data:;" in whole
    inside = re.findall(r'class="images"[^>]*><img src="data:image/png;base64,([^"]+)"', whole)
    assert (scarce.parent / name).read_bytes() in [base64.b64decode(one) for one in inside]


def test_a_page_in_the_place_of_another_removes_its_sheets_and_nothing_else(scarce, tmp_path):
    out = Path(shutil.copytree(scarce.parent, tmp_path / "out"))
    images, text = out / "images", scarce.read_text()
    (sheet,) = images.iterdir()
    others = ["run-0-0123456789ab.png", f"mine-{sheet.name}", "notes.txt", f"{sheet.name}.bak"]
    for name in others:
        (images / name).write_bytes(b"mine")
    (out / sheet.name).write_bytes(sheet.read_bytes())
    remove_outdated(out, {f"images/{sheet.name}"})
    assert sheet.exists() and (out / "index.html").read_text() == text
    leave(tmp_path / "run", **BARE)
    write_report([tmp_path / "run"], out)
    assert sorted(file.name for file in images.iterdir()) == sorted(others)
    assert (out / sheet.name).exists()
    elsewhere = images.rename(tmp_path / "elsewhere")
    images.symlink_to(elsewhere)
    (elsewhere / sheet.name).write_bytes((out / sheet.name).read_bytes())
    write_report([tmp_path / "run"], out)
    assert (elsewhere / sheet.name).exists()


def test_a_folder_of_sheets_goes_with_the_last_of_them(scarce, tmp_path):
    out = Path(shutil.copytree(scarce.parent, tmp_path / "out"))
    leave(tmp_path / "run", **BARE)
    write_report([tmp_path / "run"], out)
    assert [file.name for file in out.iterdir()] == ["index.html"]


def damage_file(run):
    (run / f"eval/{NAME}.adversarial/pgd.safetensors").write_bytes(b"no")


def change_verdicts(run):
    file = run / f"eval/{NAME}.parquet"
    table = pd.read_parquet(file)
    table["pgd_broken"] = False
    table.to_parquet(file)
    touch(run / f"eval/{NAME}.json", ("table_sha256", ""))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (damage_file, "pgd.safetensors: damaged"),
        (change_verdicts, "not the images that pgd succeeds on"),
        (lambda run: (run / "model.safetensors").unlink(), "cannot read"),
        (
            lambda run: touch(run / f"eval/{NAME}.json", ("fingerprint", "other")),
            "not those that were attacked",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused(attacked, tmp_path, spoil, reason):
    run = Path(shutil.copytree(attacked / "at", tmp_path / "at"))
    spoil(run)
    with pytest.raises(CembenchError, match=reason):
        sheet(run / f"eval/{NAME}.json")


def test_images_that_are_refused_cost_themselves_alone(attacked, tmp_path, caplog):
    run = Path(shutil.copytree(attacked / "at", tmp_path / "at"))
    damage_file(run)
    text = write_report([run], tmp_path).read_text()
    for said in (text, caplog.text):
        assert "pgd.safetensors: damaged" in said
    assert Images(text).found == [] and text.count("<dialog") == 1
    assert f"images of {run}/eval/{NAME}.json" in caplog.text


def test_cells_of_pictures_are_where_they_are_drawn():
    cells = grid_cells(80 + 3 * (8 * 34 + 16), 16 + 10 * 34)
    assert (cells.panels, cells.rows, cells.columns) == (3, 10, 8)
    assert cells.corner(2, 1, 3) == (80 + 2 * 288 + 3 * 34, 16 + 34)
    assert len(list(cells.corners())) == 240
    chains = chain_cells(80 + 11 * 50, 32 + 10 * 58)
    assert (chains.rows, chains.columns, chains.corner(0, 2, 1)) == (10, 11, (130, 132))
    assert grid_cells(500, 333) is None and chain_cells(500, 333) is None


@pytest.mark.parametrize(("count", "side"), [(3, 8), (10, 28), (25, 96), (40, 32)])
def test_cells_of_counterfactuals_are_where_they_are_drawn(count, side):
    shades = [torch.full((count, 1, side, side), shade) for shade in (0.25, 0.5, 0.75)]
    texts = {title: ["\n".join("x" * n)] * count for title, n in EDITED.items() if n}
    with Image.open(io.BytesIO(strips(dict(zip(EDITED, shades, strict=True)), texts))) as drawn:
        cells = edited_cells(*drawn.size)
        assert cells.titles == list(EDITED) and cells.rows * cells.columns >= count
        for number in range(count):
            for panel, shade in enumerate((64, 128, 191)):
                left, top = cells.corner(panel, *divmod(number, cells.columns))
                box = drawn.crop((left, top, left + cells.side, top + cells.side)).convert("L")
                assert box.getextrema() == (shade, shade)
    assert edited_cells(500, 333) is None
