"""Attacks of other libraries: their tables, and what is told where a library is missing."""

import inspect
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import foolbox
import pytest
import torch
import torchattacks

from cembench.attacks import Target
from cembench.attacks.adv_lib import AdvLibAttack
from cembench.attacks.foolbox import FoolboxAttack
from cembench.attacks.torchattacks import TorchattacksAttack
from cembench.attacks.verdict import verify
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import Protocol, load_protocol, parse_protocol
from cembench.models.checkpoint import load_checkpoint
from cembench.util.errors import CembenchError
from cembench.util.rng import isolated_rng
from tests.conftest import conv_net, images
from tests.support.attacks import run

no_adv_lib = pytest.mark.skipif(
    find_spec("adv_lib") is None, reason="pip install --no-deps adv-lib"
)
FEW = ("--limit", "12", "samples=null", "sanity=null", "density=null", "curve=null")


@pytest.fixture
def bare(monkeypatch):
    for name in ("torchattacks", "foolbox", "adv_lib"):
        monkeypatch.setitem(sys.modules, name, None)


def test_the_tables_have_all_that_the_libraries_have():
    wrappers = {"VANILA", "MultiAttack", "LGV", "AutoAttack"}
    assert {*TorchattacksAttack.known} == {*torchattacks.__all__} - wrappers
    classes = inspect.getmembers(foolbox.attacks, inspect.isclass)
    assert {*FoolboxAttack.known} == {name for name, _ in classes} - {"Attack"}


@no_adv_lib
def test_the_table_of_adv_lib_has_all_that_it_has():
    functions = inspect.getmembers(AdvLibAttack(attack="ddn")._library(), inspect.isfunction)
    assert {*AdvLibAttack.known} == {name for name, _ in functions}
    assert "visdom" not in sys.modules or find_spec("visdom") is not None


def test_foolbox_says_the_same_of_norms_and_smallest_changes():
    library = foolbox.attacks.base
    for name, offer in FoolboxAttack.known.items():
        kind = getattr(foolbox.attacks, name)
        assert issubclass(kind, library.MinimizationAttack) == offer.minimises
        if isinstance(norm := getattr(kind, "distance", None), foolbox.distances.LpDistance):
            own = {0: "l0", 1: "l1", 2: "l2"}.get(norm.p, "linf")
            assert own in offer.norms or name == "HopSkipJumpAttack"


QUICK = {  # few steps, wherever an attack takes these
    **{"steps": 5, "num_steps": 5, "n_iter": 3, "max_iterations": 10, "iter": 5, "max_iter": 3},
    **{"df_steps": 5, "search_iter": 2, "binary_search_steps": 2, "restarts": 2, "repeats": 5},
    **{"nb_iter": 1, "nb_sample": 4, "n_queries": 30, "popsize": 4, "population": 4},
    **{"initial_gradient_eval_steps": 5, "max_gradient_eval_steps": 10, "xi": 0.1, "directions": 9},
}
FAILS = {  # on grey images of four classes, for the reason that its note gives
    **dict.fromkeys(["TIFGSM", "PIFGSM", "PIFGSMPP"], "to have 3 channels"),
    "JSMA": "out of bounds",
    "BinarizationRefinementAttack": "threshold does not match",
    "str_attack": "out of bounds",
    "perc_al": "invalid for input of size",
}
if find_spec("numba") is None:
    FAILS |= {f"{p}BrendelBethgeAttack": "numba" for p in ("L0", "L1", "L2", "Linfinity")}


def proposals(kind, name, norm, model, x, y):
    attack = kind(attack=name)
    takes = attack._signature().parameters
    attack = kind(attack=name, args={key: QUICK[key] for key in QUICK if key in takes})
    target = Target.of(model, Threat(norm=norm, eps={"linf": 0.2, "l2": 1.0}[norm]), 4)
    ((_, propose),) = attack.stages(target)
    with isolated_rng(0):
        return propose(x.clone(), y), target.threat.ball


@pytest.mark.parametrize(
    "kind", [TorchattacksAttack, FoolboxAttack, pytest.param(AdvLibAttack, marks=no_adv_lib)]
)
def test_every_attack_stays_in_the_ball_or_is_refused_by_the_verdict(kind):
    model, x = conv_net(classes=4).eval(), (images(6) * 255).round() / 255
    y, found, broken = model(x).argmax(1), {}, set()
    for name, offer in kind.known.items():
        norm = next((norm for norm in offer.norms if norm in ("linf", "l2")), "linf")
        try:
            proposed, ball = proposals(kind, name, norm, model, x, y)
        except Exception as error:
            found[name] = str(error)
            continue
        inside = (ball.size(proposed - x) <= ball.eps + 1e-5) & (proposed >= 0).flatten(1).all(1)
        inside &= (proposed <= 1).flatten(1).all(1)
        success = verify(model, x, proposed, y, ball).success
        assert (success == (inside & (model(proposed).argmax(1) != y))).all(), name
        assert inside.all() or offer.minimises or norm not in offer.norms, name
        broken |= {name} if bool(success.any()) else set()
    expected = {name: text for name, text in FAILS.items() if name in kind.known}
    assert found.keys() == expected.keys(), found
    assert all(expected[name] in found[name] for name in found), found
    assert all(kind.known[name].note for name in found)
    assert len(broken) > 0.5 * len(kind.known)


def test_an_attack_that_minimises_names_its_norm():
    assert FoolboxAttack(attack="HopSkipJumpAttack").minimises == "l2"
    hop = FoolboxAttack(attack="HopSkipJumpAttack", args={"constraint": "linf"})
    assert (hop.minimises, hop.norms, hop.black_box) == (
        "linf",
        None,
        {"foolbox-hopskipjumpattack"},
    )
    assert AdvLibAttack(attack="fmn", args={"norm": "l1"}).minimises == "l1"
    with pytest.raises(CembenchError, match=r"adv-lib.df minimises linf, l2, not l1"):
        AdvLibAttack.parse({"attack": "df", "args": {"norm": "l1"}})
    assert AdvLibAttack(attack="apgd").norms == {"linf", "l2", "l1"}
    assert TorchattacksAttack(attack="FGSM").norms == {"linf"}
    assert TorchattacksAttack(attack="FGSM", args={"eps": 0.01}).norms is None


def test_attacks_of_libraries_are_in_the_guide():
    guide = (Path(__file__).parents[2] / "docs/guides/attacks.md").read_text(encoding="utf-8")
    for kind in (TorchattacksAttack, FoolboxAttack, AdvLibAttack):
        assert not {name for name in kind.known if f"`{name}`" not in guide}


def test_without_the_libraries_the_core_works_and_an_attack_says_which_extra(
    bare, cembench, trained
):
    fgsm, pgd, _ = load_protocol("quick").attacks
    short = f"attacks={json.dumps([fgsm.dump(), pgd.dump()])}"
    assert cembench("eval", trained, "--protocol", "quick", *FEW, short).code == 0
    assert "MIFGSM" in cembench("list", "attacks").out
    attack = "attacks=[{name: torchattacks, attack: MIFGSM, args: {steps: 2}}]"
    refused = cembench("eval", trained, attack, *FEW)
    assert refused.code == 2 and "torchattacks is not installed" in refused.err
    assert "pip install 'cembench[attacks]'" in refused.err and refused.err.count("\n") == 1
    with pytest.raises(CembenchError, match="is not installed"):
        parse_protocol({"curve": {"attack": {"name": "torchattacks", "attack": "PGD"}}})


def test_records_of_attacks_whose_library_is_missing_are_read(bare):
    attack = {"name": "torchattacks", "attack": "BIM", "args": {"steps": 3}}
    protocol = Protocol.parse({"name": "kept", "attacks": [attack]})
    assert protocol.libraries == ["torchattacks"]
    assert Protocol.parse(protocol.dump()).digest == protocol.digest


def test_one_step_of_pgd_from_the_image_is_fgsm(trained):
    model, metadata = load_checkpoint(trained)
    split = metadata.data.load("test").take(torch.arange(96))
    (fgsm, *_) = load_protocol("quick").attacks
    peer = {"name": "torchattacks", "attack": "FGSM", "label": "peer"}
    table = run(model, split, Threat(norm="linf", eps=0.15), fgsm.dump(), peer)
    for column in ("broken", "broken_8bit"):
        assert (table[f"fgsm_{column}"] == table[f"peer_{column}"]).all()
    assert 0 < table["fgsm_broken"].mean() < 1
