"""Attacks with images of another network, and the matrix of a suite."""

import shutil

import pandas as pd
import pytest
import torch

from cembench.attacks import attacks
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import Protocol
from cembench.evaluation.record.files import load_record
from cembench.models.checkpoint import load_checkpoint
from cembench.util.errors import CembenchError
from tests.support.attacks import run

PGD = {"name": "pgd", "steps": 5}
BOTH = "threats=[{norm: linf, eps: 0.2}, {norm: l2, eps: 1, attacks: [{name: pgd, steps: 10}]}]"
NOTHING = ("samples=null", "sanity=null", "density=null", "curve=null", "engine=plain")


def first(path, count):
    model, metadata = load_checkpoint(path)
    return model, metadata.data.load("test").take(torch.arange(count))


def test_images_of_another_network_are_judged_by_this_one(trained, undefended):
    model, split = first(trained, 64)
    given = [
        PGD,
        {"name": "transfer", "source": str(trained), "attack": PGD, "label": "itself"},
        {"name": "transfer", "source": str(undefended), "attack": PGD, "label": "other"},
    ]
    table = run(model, split, Threat(norm="linf", eps=0.15), *given)
    assert table["itself_broken"].equals(table["pgd_broken"])
    assert 0 < table["other_broken"].sum() < table["pgd_broken"].sum()
    assert (table.loc[table["other_broken"], "other_norm"] <= 0.15 + 1e-5).all()


def test_a_source_is_known_by_its_weights(trained, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(trained, source)
    attack = attacks.parse({"name": "transfer", "source": str(source), "attack": PGD})
    assert attack.title == "transfer-source" and len(attack.weights) == 64
    assert attacks.parse(attack.dump()) == attack
    model, split = first(trained, 8)
    file = source / "model.safetensors"
    file.write_bytes((trained / "model.safetensors").read_bytes() + b" ")
    with pytest.raises(CembenchError, match=r"model\.safetensors"):
        run(model, split, Threat(norm="linf", eps=0.1), attack.dump())
    file.unlink()
    assert Protocol.parse({"name": "kept", "attacks": [attack.dump()]}).attacks == [attack]
    with pytest.raises(CembenchError, match="source: no such checkpoint or run folder"):
        attacks.parse({"name": "transfer", "source": str(source)})


def test_the_matrix_of_runs_and_its_check(cembench, trained, undefended, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(trained, runs / "robust", ignore=shutil.ignore_patterns("eval"))
    shutil.copytree(undefended, runs / "weak", ignore=shutil.ignore_patterns("eval"))
    refused = cembench("transfer", runs)
    assert refused.code == 2 and "--save-adversarial" in refused.err
    # An attack that leaves the weak network alone: images of the other one succeed on it.
    feeble = "attacks=[{name: pgd, steps: 1, step_size: 0.001, start: data}]"
    strong = "attacks=[{name: pgd, steps: 10}, {name: fmn, norm: l2, steps: 20}]"
    for name, attack in (("weak", feeble), ("robust", strong)):
        plan = (BOTH, "--limit", 80, attack, *NOTHING, "--save-adversarial")
        assert cembench("eval", runs / name, *plan).code == 0
    out = tmp_path / "boards" / "transfer.csv"
    told = cembench("transfer", runs, "--out", out)
    assert told.code == 0 and "⚠ transfer_wins" in told.out
    assert out.with_suffix(".md").read_text() == told.out
    table = pd.read_csv(out, keep_default_na=False).set_index(["target", "source"])
    row = table.loc["weak", "any"]
    assert row["transfer_wins"] == "fail" and row["wins"] > 0.05 * row["survivors"]
    assert (table["wins"] <= table["survivors"]).all()
    assert (table["survivors"] <= table["images"]).all()
    (file,) = (runs / "robust").glob("eval/*.json")
    figures = load_record(file).figures
    assert row["survivors"] > 20  # in ℓ∞, although few survive ℓ2
    (kept,) = table.loc["weak", "robust"][["images"]]
    assert kept <= figures["clean"].correct - figures["pgd"].correct
    again = shutil.copytree(runs / "weak", tmp_path / "again" / "weak")
    told = cembench("transfer", runs, again)
    assert told.code == 0 and all(f"| {one} |" in told.out for one in (runs / "weak", again))
