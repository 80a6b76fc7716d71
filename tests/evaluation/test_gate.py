"""The gate: what got worse is named, with how sure that is; what cannot be told is said."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from scipy.stats import binom

from cembench.evaluation.gate.baseline import gated_of, load_baseline
from cembench.evaluation.gate.check import check
from cembench.evaluation.gate.evaluator import Evaluator
from cembench.evaluation.gate.gate import Measured, judge
from cembench.evaluation.gate.update import update
from cembench.evaluation.gate.verdicts import load_verdicts
from cembench.evaluation.protocol import load_protocol
from cembench.evaluation.record.files import load_record, load_table
from cembench.evaluation.section import GatedValue
from cembench.evaluation.statistics import holm
from cembench.models.checkpoint import load_checkpoint, save_checkpoint
from cembench.util.files.yaml import read_yaml, to_yaml
from tests.conftest import NOTHING

pytest_plugins = "pytester"
PLAN = [
    *NOTHING,
    "attacks=[{name: pgd, steps: 5}]",
    "density={steps: 1}",
    "sanity={images: 48, steps: 2, queries: 5}",
]


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(trained, folder / "tiny")
    path = folder / "baseline.yaml"
    update([str(folder / "tiny")], path, load_protocol("quick", PLAN, limit=200), Evaluator())
    return path


@pytest.fixture
def baseline(made, tmp_path):
    """A baseline of one checkpoint, `tiny`, which lies beside it."""
    return shutil.copytree(made.parent, tmp_path / "models") / made.name


def weakened(baseline, share):
    """The same checkpoint with noise on its weights, in a folder of its own."""
    model, metadata = load_checkpoint(baseline.parent / "tiny")
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: value + share * value.std() * torch.randn(value.shape, generator=generator)
        if name.endswith("weight")
        else value
        for name, value in model.state_dict().items()
    }
    path = baseline.parent / "weak" / "model.safetensors"
    save_checkpoint(path, weights, metadata)
    return path.parent


def edit(baseline, change):
    values = read_yaml(baseline)
    change(values)
    baseline.write_text(to_yaml(values))


def test_a_checkpoint_passes_its_own_baseline(cembench, baseline):
    result = cembench("check", baseline.parent / "tiny", "--baseline", baseline)
    assert result.code == 0 and "REGRESSION" not in result.out
    for figure in ("clean", "pgd", "worst_case", "ece", "auroc noise"):
        assert f"| tiny | {figure} |" in result.out
    assert cembench("check", "--baseline", baseline).out == result.out


def test_a_weakened_checkpoint_fails_with_the_figure_the_p_value_and_the_images(
    cembench, baseline, tmp_path
):
    weak = weakened(baseline, 0.5)
    files = ["--junit", tmp_path / "junit.xml", "--markdown", tmp_path / "check.md"]
    result = cembench("check", f"tiny={weak}", "--baseline", baseline, "--json", *files)
    outcomes = {row["metric"]: row for row in json.loads(result.out)}
    pgd = outcomes["pgd"]
    assert result.code == 1 and pgd["verdict"] == "regression" and pgd["now"] < pgd["was"]
    lost, won = len(pgd["lost"]), len(pgd["won"])
    single = binom.sf(lost - 1, lost + won, 0.5)
    assert single <= pgd["p_value"] <= 3 * single < 0.05
    assert lost - won == round(200 * (pgd["was"] - pgd["now"]))
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()[0]
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert "pgd" in failed and suite.get("failures") == str(len(failed))
    text = (tmp_path / "check.md").read_text()
    assert "| tiny | pgd |" in text and f"lost images {pgd['lost'][0]}, " in text


def test_too_few_images_are_inconclusive_and_say_how_many_would_tell(cembench, baseline, tmp_path):
    small = tmp_path / "small.yaml"
    update(
        [f"tiny={baseline.parent / 'tiny'}"],
        small,
        load_protocol("quick", PLAN, limit=40),
        Evaluator(),
    )
    result = cembench("check", "--baseline", small)
    assert result.code == 2 and "more images needed, about" in result.out
    edit(small, lambda values: values.update(margin=0.1))
    assert cembench("check", "--baseline", small).code == 0


@pytest.mark.parametrize(
    ("better", "value", "verdict"),
    [
        ("lower", 0.89, "pass"),
        ("lower", 0.7, "regression"),
        ("higher", 0.7, "pass"),
        ("higher", 1.2, "regression"),
    ],
)
def test_other_figures_may_move_within_their_tolerance_and_in_the_good_direction(
    baseline, better, value, verdict
):
    """The figure is 0.9 or so today: the baseline says `value`, ± 0.1."""
    found = check([], baseline, Evaluator())
    (today,) = [row.now for row in found if row.metric == "auroc noise"]
    metric = GatedValue(value=value * today / 0.9, tolerance=0.1, better=better)
    edit(baseline, lambda v: v["rows"]["tiny"]["metrics"].update({"auroc noise": metric.dump()}))
    found = check([], baseline, Evaluator())
    assert [row.verdict for row in found if row.metric == "auroc noise"] == [verdict]


def sanity_of(baseline, verdicts):
    """Return the outcome of the sanity checks, if some had other verdicts today."""
    (path,) = (baseline.parent / "tiny" / "eval").glob("baseline-*.json")
    today, record = load_baseline(baseline), load_record(path)
    checks = [
        check.model_copy(update={"verdict": verdicts.get(check.name, check.verdict)})
        for check in record.sanity
    ]
    row, before = today.rows["tiny"], load_verdicts(baseline, today, "tiny")
    changed = record.model_copy(update={"sanity": checks})
    found = {"tiny": Measured(row, before, changed, load_table(path))}
    (outcome,) = [one for one in judge(today, found) if one.metric == "sanity"]
    return outcome


def test_a_sanity_check_that_fails_now_and_did_not_before_is_a_regression(baseline):
    assert sanity_of(baseline, {}).verdict == "pass"
    row = sanity_of(baseline, {"zero_gradients": "fail"})
    assert row.verdict == "regression" and "zero_gradients" in row.note
    edit(baseline, lambda v: v["rows"]["tiny"].update(sanity_failed=["zero_gradients"]))
    assert sanity_of(baseline, {"zero_gradients": "fail"}).verdict == "pass"


def test_a_sanity_check_that_has_no_verdict_any_more_is_an_error(baseline):
    row = sanity_of(baseline, {"zero_gradients": "skipped"})
    assert row.verdict == "error" and "no verdict any more: zero_gradients" in row.note
    edit(baseline, lambda v: v["rows"]["tiny"].update(sanity_passed=[], sanity_failed=[]))
    (path,) = (baseline.parent / "tiny" / "eval").glob("baseline-*.json")
    none = {check.name: "skipped" for check in load_record(path).sanity}
    assert sanity_of(baseline, none).verdict == "unchecked"


def test_holm_adjusts_each_p_value_by_its_rank():
    assert holm([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.09, 0.09, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


def test_an_update_keeps_tolerances_and_other_rows(cembench, baseline):
    edit(baseline, lambda v: v["rows"]["tiny"]["metrics"]["ece"].update(tolerance=0.5, value=9.0))
    weak = weakened(baseline, 0.5)
    result = cembench("check", baseline.parent / "tiny", weak, "--baseline", baseline, "--update")
    rows = load_baseline(baseline).rows
    assert result.code == 0 and set(rows) == {"tiny", "weak"}
    (path,) = (baseline.parent / "tiny" / "eval").glob("baseline-*.json")
    assert rows["tiny"].metrics["ece"].tolerance == 0.5
    assert rows["tiny"].metrics["ece"].value == gated_of(load_record(path))["ece"].value
    assert cembench("check", "--baseline", baseline).code == 0
    assert cembench("verify", path, baseline.parent / "tiny").code == 0


def test_what_cannot_be_compared_is_one_line_and_exit_code_two(cembench, baseline):
    tiny = baseline.parent / "tiny"

    def fails(message, *args, file=baseline):
        result = cembench("check", *args, "--baseline", file)
        assert result.code == 2 and message in result.err, result
        assert len(result.err.strip().splitlines()) == 1

    fails("no row 'tinny'; did you mean 'tiny'?", f"tinny={tiny}")
    fails("cannot read", "tiny=nowhere")
    fails("two checkpoints are called 'tiny'", tiny, tiny)
    fails("not there; begin it with --protocol", tiny, "--update", file=tiny / "none.yaml")
    fails("is there; delete it first", tiny, "--update", "--protocol", "quick")
    fails("use --update", tiny, "--protocol", "quick")
    fails("cannot read", tiny, file=tiny / "none.yaml")
    edit(baseline, lambda values: values["rows"]["tiny"].update(fingerprint="other"))
    fails("not those of the baseline", tiny)
    edit(baseline, lambda values: values.update(margins=1))
    fails("margins: unknown key; did you mean 'margin'?", tiny)


def test_verdicts_that_changed_since_are_refused(cembench, baseline):
    (verdicts,) = baseline.parent.glob("baseline-verdicts/*")
    verdicts.write_bytes(verdicts.read_bytes()[:-1])
    result = cembench("check", "--baseline", baseline)
    assert result.code == 2 and "not the verdicts" in result.err


def test_a_network_that_cannot_be_evaluated_is_no_pass(cembench, baseline):
    model, metadata = load_checkpoint(baseline.parent / "tiny")
    weights = model.state_dict()
    last = [name for name in weights if name.endswith("weight")][-1]
    weights[last] = weights[last] * torch.nan
    save_checkpoint(baseline.parent / "nan.safetensors", weights, metadata)
    nan = baseline.parent / "nan.safetensors"
    result = cembench("check", f"tiny={nan}", "--baseline", baseline)
    assert result.code == 2 and "not finite" in result.err


def test_pytest_has_a_test_a_figure(pytester, baseline):
    pytester.makepyfile("def test_own(): pass")
    result = pytester.runpytest_inprocess("--cembench-baseline", baseline, "-v")
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(["*tiny::worst_case PASSED*"])
    shutil.copy(weakened(baseline, 0.5) / "model.safetensors", baseline.parent / "tiny")
    result = pytester.runpytest_inprocess("--cembench-baseline", Path(baseline), "-v", "-m", "")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*tiny::pgd FAILED*", "*tiny pgd: regression: *p = *lost images*"])
