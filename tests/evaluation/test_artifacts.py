"""What a stranger can check: figures counted again, checkpoints compared image by image."""

import json
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from cembench.data import datasets
from cembench.evaluation.compare import compare_records, difference
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.record.files import load_record, load_table, save_record
from cembench.evaluation.statistics import paired_interval
from cembench.evaluation.verify import verify_record
from cembench.util.errors import CembenchError
from cembench.util.files.layout import RunLayout
from cembench.util.files.parquet import read_frame
from tests.conftest import NOTHING

QUICK = [*NOTHING, "attacks=[{name: pgd, steps: 4}]", "batch_size=16"]


@pytest.fixture
def kept(copy):
    _, path = evaluate(copy, load_protocol("quick", QUICK, limit=40), save_adversarial=True)
    return path


def disagreements(path, copy):
    return {row.figure for row in verify_record(path, copy) if not row.agrees}


def test_every_figure_is_counted_again_from_the_kept_images(kept, copy):
    rows = verify_record(kept, copy)
    assert disagreements(kept, copy) == set()
    figures = {row.figure: row.again for row in rows}
    record = json.loads(kept.read_text())
    assert figures["pgd"] == record["figures"]["pgd"]["correct"] < figures["clean"]
    assert {"clean (8 bits)", "worst_case", "images whose verdicts agree"} < set(figures)


def test_the_kept_bytes_are_adversarial_as_they_are(kept, copy):
    images = load_file(RunLayout.adversarial(kept) / "pgd.safetensors")
    assert images["bytes"].dtype == torch.uint8 and len(images["rows"]) == len(images["images"])
    table = read_frame(kept.with_suffix(".parquet"))
    assert sorted(images["rows"].tolist()) == sorted(table.loc[table["pgd_broken"], "index"])


def touch_up(path, figure, more):
    """Change a figure of a record as a forger would, who seals it anew."""
    record, table = load_record(path), load_table(path)
    figures = record.figures
    changed = figures[figure].model_copy(update={"correct": figures[figure].correct + more})
    update = {"figures": figures | {figure: changed}}
    save_record(path, record.model_copy(update=update), table)


def test_a_figure_that_was_touched_up_is_found(kept, copy):
    touch_up(kept, "pgd", 1)
    assert disagreements(kept, copy) == {"pgd"}


def test_a_verdict_that_was_touched_up_is_found(kept, copy):
    table = load_table(kept)
    table.loc[table["pgd_broken"].idxmax(), "pgd_broken"] = False
    save_record(kept, load_record(kept), table)
    assert disagreements(kept, copy) == {"images whose verdicts agree"}


@pytest.mark.parametrize("spoil", ["outside the ball", "harmless", "fewer"])
def test_images_that_do_not_break_the_network_do_not_count(kept, copy, spoil):
    file = RunLayout.adversarial(kept) / "pgd.safetensors"
    images = load_file(file)
    if spoil == "outside the ball":
        images["images"][0] = 1 - images["images"][0].round()
    elif spoil == "harmless":
        images["images"][0] = datasets.parse("digits").load("test").pixels()[images["rows"][0]]
    else:
        images = {key: value[1:].clone() for key, value in images.items()}
    save_file(images, file)
    assert {"pgd", "worst_case", "images whose verdicts agree"} <= disagreements(kept, copy)


def test_the_command_exits_with_one_on_a_mismatch_and_two_without_evidence(cembench, kept, copy):
    assert cembench("verify", kept, copy).code == 0
    touch_up(kept, "clean", -1)
    touched = cembench("verify", kept, copy)
    assert touched.code == 1 and "| clean |" in touched.out and "DIFFERS" in touched.out
    other = copy.with_name("other.safetensors")
    shutil.copy(copy, other)
    with other.open("ab") as file:
        file.write(b" ")
    for spoil, message in (
        (lambda: shutil.rmtree(RunLayout.adversarial(kept)), "--save-adversarial"),
        (lambda: copy.write_bytes(other.read_bytes()), "of another checkpoint"),
        (lambda: kept.write_text("{"), "damaged"),
    ):
        spoil()
        result = cembench("verify", kept, copy)
        assert result.code == 2 and message in result.err and len(result.err.splitlines()) == 1


def test_an_attack_that_breaks_nothing_verifies_too(copy):
    plan = load_protocol("quick", [*QUICK, "threat.eps=0"], limit=20)
    _, path = evaluate(copy, plan, save_adversarial=True)
    assert disagreements(path, copy) == set()


def test_mcnemar_is_the_exact_binomial():
    """Ten images lost and two won: 2·P(X ≤ 2) for X ~ B(12, 1/2) is 158/4096."""
    first = pd.Series([True] * 10 + [False] * 2 + [True] * 8)
    second = pd.Series([False] * 10 + [True] * 2 + [True] * 8)
    found = difference("pgd", pd.Series(range(100, 120)), first, second)
    assert found.p_value == pytest.approx(158 / 4096)
    assert (found.first, found.second, found.difference) == (18, 10, -0.4)
    assert found.only_first == [*range(100, 110)] and found.only_second == [110, 111]
    assert found.low < -0.4 < found.high < 0
    same = difference("pgd", pd.Series(range(20)), first, first)
    assert same.p_value == 1 and same.low < 0 < same.high


def test_the_paired_interval_holds_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(300):
        draw = torch.rand(80, generator=generator)
        lost, won = int((draw < 0.1).sum()), int((draw > 0.95).sum())
        low, high = paired_interval(lost, won, 80)
        held += low <= -0.05 <= high
    assert held / 300 > 0.92


def test_records_are_compared_image_by_image_and_only_like_with_like(cembench, copy, kept):
    other = copy.parent.parent / "other"
    shutil.copytree(copy.parent, other)
    rows = compare_records(load_record(kept), load_record(other / "eval" / kept.name))
    assert [row.figure for row in rows] == ["clean", "pgd", "worst_case"]
    assert all(row.p_value == 1 and row.only_first == [] for row in rows)
    table = cembench("compare", copy.parent, other)
    assert table.code == 0 and "| clean |" in table.out
    evaluate(copy, load_protocol("quick", QUICK, limit=20))
    ambiguous = cembench("compare", copy.parent, other)
    assert ambiguous.code == 2 and "2 records; choose one with --protocol" in ambiguous.err
    fewer = next(p for p in (copy.parent / "eval").glob("*n20*.json"))
    with pytest.raises(CembenchError, match="records differ in protocol_digest"):
        compare_records(load_record(fewer), load_record(kept))
    empty = cembench("compare", copy.parent / "none", other)
    assert empty.code == 2 and "run `cembench eval`" in empty.err


def test_show_prints_what_a_file_says_of_itself(cembench, kept, copy):
    assert json.loads(cembench("show", copy, "--json").out)["method"] == "at"
    record = json.loads(cembench("show", kept, "--json").out)
    assert record["environment"]["source"] and "dirty" in record["environment"]
    assert cembench("show", copy.with_name("none.safetensors")).code == 2
