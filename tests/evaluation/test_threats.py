"""Several threat models: each as if it were alone, and their union image by image."""

import shutil

import numpy as np
import pandas as pd
import pytest
from torch import nn

import cembench as cb
from cembench.attacks.pgd import PGDAttack
from cembench.energy.threat import Threat
from cembench.evaluation.compare import right_of
from cembench.evaluation.evaluate import evaluate
from cembench.evaluation.measures.counts import count
from cembench.evaluation.protocol import Protocol, load_protocol
from cembench.evaluation.record import load_record, load_table
from cembench.evaluation.sections import THREATS
from cembench.evaluation.sections.threats import combined
from cembench.evaluation.verify import verify_record
from cembench.suites.rows import cells
from cembench.util.errors import CembenchError, ConfigError
from cembench.util.files.layout import RunLayout
from tests.conftest import NOTHING
from tests.support.attacks import linear_case, run
from tests.support.records import settled, touch

THREE = "threats=[linf 0.1, l2 0.5, {norm: linf, eps: 0.03, attacks: [{name: pgd, steps: 2}]}]"
PLAN = [*NOTHING, "attacks=[{name: pgd, steps: 3}, {name: pgd, label: margin, loss: margin}]"]
PLAN += ["batch_size=16"]
CURVE = "curve={factors: [0.5, 2], attack: {name: pgd, steps: 2}}"


def plan(*changes):
    return load_protocol("quick", [*PLAN, *changes], limit=40)


@pytest.fixture(scope="module")
def measured(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("threats") / "run"
    folder.mkdir()
    shutil.copy(trained / "model.safetensors", folder)
    record, path = evaluate(folder, plan(THREE, CURVE), save_adversarial=True)
    return record, path


def test_the_first_threat_model_is_as_it_is_alone_bit_for_bit(measured, copy):
    record, path = measured
    alone, other = evaluate(copy, plan("threat={norm: linf, eps: 0.1}", CURVE))
    table = load_table(path)
    own = load_table(other)
    pd.testing.assert_frame_equal(table[own.columns], own)
    assert record.threat == alone.threat == Threat(norm="linf", eps=0.1)
    assert settled(path).figures == settled(other).figures and record.curve == alone.curve
    assert alone.threats is None and "threats" not in alone.dump()


def test_each_other_one_is_as_it_is_alone(measured, copy):
    record, path = measured
    alone, other = evaluate(copy, plan("threat={norm: l2, eps: 0.5}", CURVE))
    table, own = load_table(path), load_table(other)
    own = own[[c for c in own.columns if c.startswith(("pgd_", "margin_", "curve_"))]]
    own = own.rename(columns=lambda name: f"l2-0.5 {name}")
    pd.testing.assert_frame_equal(table[own.columns], own)
    assert record.threats.under["l2-0.5"].curve == alone.curve
    under = record.threats.under["linf-0.03"].figures
    assert list(under) == ["pgd", "worst_case"] and under["pgd"].correct > 0


def test_the_union_survives_every_threat_model_image_by_image(measured):
    record, path = measured
    right = right_of(load_table(path))
    worst = [right[name] for name in ("worst_case", "l2-0.5 worst_case", "linf-0.03 worst_case")]
    assert (right["union"] == worst[0] & worst[1] & worst[2]).all()
    union = record.threats.union
    assert union.correct == right["union"].sum() <= min(one.sum() for one in worst)
    assert union.correct_8bit >= union.correct and union.low < union.accuracy < union.high
    assert record.accuracies["union"] == union
    assert {*right} == {*record.accuracies}
    for one in record.threats.under.values():
        assert union.correct <= one.figures["worst_case"].correct
        assert one.seconds == pytest.approx(sum(f.seconds for f in one.figures.values()), abs=1e-3)


def test_a_record_agrees_with_the_images_saved_under_each_threat_model(measured, tmp_path):
    kept = shutil.copytree(measured[1].parent.parent, tmp_path / "run") / "eval" / measured[1].name
    rows = verify_record(kept, kept.parent.parent)
    assert [row.figure for row in rows if not row.agrees] == []
    names = {file.stem for file in RunLayout.adversarial(kept).iterdir()}
    assert names == {"pgd", "margin", "l2-0.5 pgd", "l2-0.5 margin", "linf-0.03 pgd"}
    touch(kept, ("threats/union/correct", 1), ("threats/under/linf-0.03/figures/pgd/correct", 40))
    adversarial = RunLayout.adversarial(kept)
    shutil.copy(adversarial / "linf-0.03 pgd.safetensors", adversarial / "l2-0.5 pgd.safetensors")
    wrong = {row.figure for row in verify_record(kept, kept.parent.parent) if not row.agrees}
    assert {"threats: union.correct", "threats: under.linf-0.03.figures.pgd.correct"} <= wrong
    assert {"threats: under.l2-0.5.figures.pgd.correct", "images whose verdicts agree"} <= wrong
    (adversarial / "l2-0.5 margin.safetensors").unlink()
    with pytest.raises(CembenchError, match=r"l2-0\.5 margin.*save-adversarial"):
        verify_record(kept, kept.parent.parent)


def test_an_evaluation_killed_between_threat_models_goes_on_there(measured, copy, monkeypatch):
    asked, search = [], PGDAttack.search

    def killed(self, network, x, y, context, verifier):
        asked.append(str(context.threat))
        if len(asked) == 3 + 2 + 1:  # in the second of three threat models, in the first chunk
            raise KeyboardInterrupt
        return search(self, network, x, y, context, verifier)

    monkeypatch.setattr(PGDAttack, "search", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(copy, plan(THREE))
    again = list(asked)
    record, path = evaluate(copy, plan(THREE))
    later = asked[len(again) :]
    assert again[:2] == ["linf-0.1"] * 2 and "l2-0.5" in again
    assert later[0] == again[-1] and len(later) == 3 * 5 - len(again) + 1
    pd.testing.assert_frame_equal(
        load_table(path), load_table(measured[1])[load_table(path).columns]
    )
    assert record.threats.union == measured[0].threats.union


def test_the_union_of_a_linear_network_is_that_of_its_distances():
    distances = {}
    for norm in ("linf", "l2"):
        model, split, distances[norm] = linear_case(2, norm)
    eps = {norm: float(found.quantile(0.4)) for norm, found in distances.items()}
    several = [{"norm": norm, "eps": value} for norm, value in eps.items()]
    strong = {"name": "pgd", "steps": 40}
    table = run(model, split, Threat(norm="linf", eps=eps["linf"]), strong, threats=several)
    right = right_of(table)["union"].to_numpy()
    margin = {norm: found.numpy() / eps[norm] - 1 for norm, found in distances.items()}
    least = np.minimum(*margin.values())
    clear = np.abs(least) > 0.02
    assert clear.sum() > 30
    np.testing.assert_array_equal(right[clear], least[clear] > 0)


def test_the_union_allows_for_what_samples_left_untried():
    table = pd.DataFrame(0, range(100), ["label", "clean_pred", "clean_8bit_pred"])
    for title, untried in (("a", range(50, 100)), ("l2-1 a", range(40, 90))):
        table[f"{title}_broken"] = table[f"{title}_broken_8bit"] = False
        table[f"{title}_by"] = ""
        table[f"{title}_sample"] = ["untried" if n in untried else "drawn" for n in range(100)]
    groups = combined(["a", "l2-1 a"]).items()
    figures = {name: count(table, attacks, {})["worst_case"] for name, attacks in groups}
    alone, union = figures["worst_case"], figures["union"]
    assert alone.untried == 50 and union.untried == 60
    assert alone.at_risk < union.at_risk <= 60 and union.low < alone.low < alone.accuracy


def test_wall_times_are_no_figures(measured):
    recorded = measured[0].threats
    found = recorded.under["l2-0.5"]
    times = {"seconds": 9.0, "stage_seconds": {"apgd-ce": 4.0, "square": 5.0}}
    figures = {name: one.model_copy(update=times) for name, one in found.figures.items()}
    later = found.model_copy(update={"figures": figures, "seconds": 18.0})
    again = recorded.model_copy(update={"under": {**recorded.under, "l2-0.5": later}})
    assert all(row.agrees for row in THREATS.compare(recorded, again))


@pytest.mark.parametrize(
    ("threats", "message"),
    [
        ("linf 8/255, linf-8/255", r"threats\.1: linf-8/255 is given twice"),
        ("linf 8/255, l7 1", r"threats\.1\.norm: give one of linf"),
        ("linf 8, l2 1", r"threats\.0\.eps: 8 reaches every image.*8/255"),
        ("linf 8/255, l2", r"threats\.1\.eps: required"),
        ("linf 8/255, l2 one", r"threats\.1\.eps: input should be a valid number"),
        ("linf 8/255", "threats: give two threat models or more"),
        (7, "threats: input should be a valid list"),
        ([{"norm": "linf", "eps": 0.1, "attacks": ["pgd"]}, "l2 1"], r"threats\.0\.attacks"),
        (["linf 0.1", {"norm": "l2", "eps": 1, "attacks": ["pgd", "pgd"]}], "label 'pgd' is taken"),
        (["linf 0.1", {"norm": "l2", "eps": 1, "atacks": []}], "did you mean 'attacks'"),
    ],
)
def test_wrong_threats_are_named(threats, message):
    with pytest.raises(ConfigError, match=message):
        Protocol.parse({"name": "test", "attacks": ["pgd"], "threats": threats})


def test_threats_fit_the_rest_of_the_protocol():
    values = {"name": "test", "attacks": ["pgd"], "threats": "linf 0.1, l2 1"}
    same = Protocol.parse({**values, "threat": {"norm": "linf", "eps": 0.1}})
    assert same == Protocol.parse(values) == Protocol.parse(same.dump())
    with pytest.raises(ConfigError, match=r"threat: threats begins with linf-0\.1"):
        Protocol.parse({**values, "threat": {"eps": 0.2}})
    with pytest.raises(ConfigError, match="threats: no attack"):
        Protocol.parse({**values, "attacks": []})
    with pytest.raises(ConfigError, match="label 'union' is taken"):
        Protocol.parse({**values, "attacks": [{"name": "pgd", "label": "union"}]})
    assert Protocol.parse({"name": "a", "attacks": [{"name": "pgd", "label": "union"}]}).runs
    fast = Protocol.parse({**values, "engine": "fast", "attacks": ["autoattack"]})
    assert [one.title for one in fast.runs] == ["autoattack-fast", "l2-1 autoattack-fast"]


def test_an_attack_that_does_not_know_a_norm_is_refused(monkeypatch):
    monkeypatch.setattr(PGDAttack, "norms", frozenset({"linf"}))
    values = {"name": "test", "attacks": ["pgd"], "threats": "linf 0.1, l2 1"}
    with pytest.raises(ConfigError, match=r"threats: pgd knows linf, not .*l2.*: autoattack.*own"):
        Protocol.parse(values)
    own = ["linf 0.1", {"norm": "l2", "eps": 1, "attacks": ["autoattack"]}]
    assert Protocol.parse({**values, "threats": own}).runs
    with pytest.raises(ConfigError, match="threats: pgd knows linf"):
        Protocol.parse({**values, "threats": own, "curve": {}})


def test_an_attack_that_minimises_a_norm_is_run_under_the_first_one_and_under_its_own(monkeypatch):
    monkeypatch.setattr(PGDAttack, "minimises", "l2")
    values = {"name": "test", "attacks": ["autoattack", "pgd"]}
    several = Protocol.parse({**values, "threats": "linf 0.1, l2 1, linf 0.3"})
    titles = [one.title for one in several.runs]
    assert titles == ["autoattack", "pgd", "l2-1 autoattack", "l2-1 pgd", "linf-0.3 autoattack"]
    own = ["l2 1", {"norm": "linf", "eps": 0.1, "attacks": ["pgd"]}]
    with pytest.raises(ConfigError, match="threats: pgd minimises l2; leave"):
        Protocol.parse({**values, "threats": own})


def test_a_radius_beyond_the_images_is_named(copy):
    with pytest.raises(ConfigError, match=r"threats\.1\.eps: 9 reaches every image"):
        evaluate(copy, plan("threats=linf 0.1, l2 9"))


def test_the_command_line_and_python_take_them_as_text(copy, cembench):
    protocol = copy.parent / "p.yaml"
    protocol.write_text("{attacks: [{name: pgd, steps: 1}], limit: 16}")
    folder = copy.parent
    done = cembench("eval", folder, "--protocol", protocol, "--threats", "linf 8/255, l2 0.5")
    assert done.code == 0 and "union" in done.out
    (path,) = RunLayout(folder).records("*")
    shown = cembench("show", path)
    assert "l2-0.5 worst_case" in shown.out and "union" in shown.out
    other = shutil.copytree(folder, folder.with_name("other"))
    paired = cembench("compare", folder, other)
    assert "| l2-0.5 pgd" in paired.out and "| union" in paired.out
    plain = {"attacks": [{"name": "pgd", "steps": 1}], "limit": 16}
    threats = ["linf 8/255", Threat(norm="l2", eps=0.5)]
    record = cb.evaluate(folder, protocol=plain, threats=threats, device="cpu")
    assert record.threats.union == load_record(path).threats.union
    assert list(record.to_frame().index)[-1] == "union"
    with pytest.raises(CembenchError, match="threat or threats"):
        cb.evaluate(folder, protocol=plain, threat="linf 0.1", threats=threats)


def test_a_baseline_keeps_the_verdicts_under_each_threat_model(copy, cembench, tmp_path):
    protocol, baseline = tmp_path / "p.yaml", tmp_path / "baseline.yaml"
    protocol.write_text("{attacks: [{name: pgd, steps: 1}], limit: 16, threats: 'linf 0.1, l2 1'}")
    made = ["--baseline", baseline, "--update", "--protocol", protocol]
    assert cembench("check", copy.parent, *made).code == 0
    checked = cembench("check", "--baseline", baseline, "--allow-unchecked")
    assert "| l2-1 pgd |" in checked.out and "| union |" in checked.out, checked


def test_without_a_gradient_the_attacks_are_left_out_under_each_and_there_is_no_union():
    model, split, _ = linear_case(3, "l2")
    hard = Hard(model)
    record = cb.evaluate(hard, (split.pixels(), split.labels), ["pgd"], threats="linf 0.1, l2 1")
    assert record.threats.union is None and record.threats.figures == {}
    assert record.not_applicable[:2] == ["pgd", "l2-1 pgd"]
    assert cells(record).keys() >= {"clean ↑"}


class Hard(nn.Module):
    """A network whose logits are those of a step function."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).sign().detach()
