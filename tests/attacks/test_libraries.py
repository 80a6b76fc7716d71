"""Attacks of other libraries: their tables, and what is told where a library is missing."""

import json
import sys

import pytest
import torch
import torchattacks

from cembench.attacks.torchattacks import ATTACKS
from cembench.energy.threat import Threat
from cembench.evaluation.protocol import Protocol, load_protocol, parse_protocol
from cembench.models.checkpoint import load_checkpoint
from cembench.util.errors import CembenchError
from tests.support.attacks import run

FEW = ("--limit", "12", "samples=null", "sanity=null", "density=null", "curve=null")


@pytest.fixture
def bare(monkeypatch):
    for name in ("torchattacks", "foolbox", "adv_lib"):
        monkeypatch.setitem(sys.modules, name, None)


def test_the_table_of_torchattacks_has_all_that_it_has():
    wrappers = {"VANILA", "MultiAttack", "LGV", "AutoAttack"}
    assert {*ATTACKS} == {*torchattacks.__all__} - wrappers


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
