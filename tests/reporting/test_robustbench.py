"""RobustBench's entries: published boards per data set and threat model, beside measured ones."""

import json

import pytest

from cembench.evaluation.record.files import save_record
from cembench.reporting.leaderboard.robustbench import robustbench_boards
from cembench.util.errors import CembenchError
from tests.support.records import record

ENTRY = {
    "link": "https://arxiv.org/abs/0000.00000",
    "name": "A paper | with a bar",
    "authors": "A. Author",
    "additional_data": True,
    "number_forward_passes": 1,
    "dataset": "cifar10",
    "venue": "GitHub,<br>Oct 2019",
    "architecture": "WideResNet-28-10",
    "eps": "8/255",
    "clean_acc": "89.69",
    "reported": "62.5",
    "autoattack_acc": "59.53",
    "unreliable": False,
}


def entry(root, name, dataset="cifar10", threat="Linf", **changes):
    values = {key: value for key, value in {**ENTRY, **changes}.items() if value is not ...}
    file = root / "model_info" / dataset / threat / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values))
    return file


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / "robustbench"
    entry(root, "Carmon2019Unlabeled")
    entry(root, "Amini2024MeanSparse", autoattack_acc="75.28", external="58.10", unreliable=True)
    entry(root, "Wrong", dataset="cifar100", additional_data=False)  # says cifar10, as theirs do
    entry(root, "Engstrom2019", threat="L2", eps="0.5", unreliable=...)
    augmix = {"autoattack_acc": ..., "corruptions_acc": "88.82", "eps": None}
    entry(root, "AugMix", threat="corruptions", **augmix)
    entry(root, "Better", threat="corruptions", **{**augmix, "corruptions_acc": "90.1"})
    return root


def test_there_is_a_board_per_data_set_and_threat_model_best_first(checkout):
    boards = {board.stem: board for board in robustbench_boards(checkout)}
    assert [*boards] == [
        f"published-robustbench-{place}"
        for place in ("cifar10-L2", "cifar10-Linf", "cifar10-corruptions", "cifar100-Linf")
    ]
    linf = boards["published-robustbench-cifar10-Linf"]
    assert linf.table["name"].tolist() == ["Carmon2019Unlabeled", "Amini2024MeanSparse"]
    assert linf.table["best_known"].tolist() == ["59.53", "58.10"]
    assert linf.table["threat"].tolist() == ["linf-8/255"] * 2
    assert "reported, not re-run" in linf.title
    first = linf.shown.iloc[0]
    assert (first["clean ↑"], first["extra data"], first["unreliable"]) == ("89.69", "yes", "no")
    assert first["venue"] == "GitHub, Oct 2019" and "A paper \\| with a bar" in linf.markdown()
    other = boards["published-robustbench-cifar100-Linf"].table.iloc[0]
    assert (other["dataset"], other["extra_data"]) == ("cifar100", "no")
    corrupted = boards["published-robustbench-cifar10-corruptions"]
    assert corrupted.table["name"].tolist() == ["Better", "AugMix"]
    assert "autoattack ↑" not in corrupted.shown and corrupted.table["threat"][0] == "corruptions"


def test_a_folder_of_entries_will_do_and_data_sets_choose(checkout):
    boards = robustbench_boards(checkout / "model_info", ["cifar100", "digits"])
    assert [board.stem for board in boards] == ["published-robustbench-cifar100-Linf"]
    assert len(robustbench_boards(checkout, ["cifar10-jpeg"])) == 3


def test_they_stand_behind_the_measured_boards(cembench, checkout, tmp_path):
    for name in ("cifar10", "digits"):
        found = record("mine", 60, dataset=name)
        save_record(tmp_path / name / "mine" / "eval" / "quick.json", found, None)
    out = ("--out", tmp_path / "out")
    result = cembench("leaderboard", tmp_path / "cifar10", "--robustbench", checkout, *out)
    assert result.code == 0 and result.out.index("| mine |") < result.out.index("| Carmon2019")
    table = (tmp_path / "out" / "published-robustbench-cifar10-Linf.csv").read_text()
    assert "Amini2024MeanSparse,cifar10,linf-8/255,WideResNet-28-10,yes,89.69,75.28,58.10" in table
    nothing = cembench("leaderboard", tmp_path / "digits", "--robustbench", checkout, *out)
    assert nothing.code == 0 and "no entries of digits" in nothing.err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", "no entry of RobustBench"),
        ("{}", "it has no clean_acc"),
        (json.dumps({**ENTRY, "autoattack_acc": "high"}), "autoattack_acc is high, not a number"),
        (json.dumps({**ENTRY, "clean_acc": [1]}), "clean_acc is"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_entry_is_named(checkout, content, words):
    file = entry(checkout, "Bad")
    file.write_text(content)
    with pytest.raises(CembenchError, match=words) as error:
        robustbench_boards(checkout)
    assert "Bad.json" in str(error.value) and "\n" not in str(error.value)


def test_a_folder_without_entries_says_where_they_are(tmp_path):
    with pytest.raises(CembenchError, match="give a checkout of its repository"):
        robustbench_boards(tmp_path)
