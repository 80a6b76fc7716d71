"""How to cite cembench, as programs read it."""

from pathlib import Path

from cembench import __version__
from cembench.util.files.yaml import read_yaml

CITATION = read_yaml(Path(__file__).parents[2] / "CITATION.cff")


def test_it_is_of_this_version_and_cites_the_paper():
    assert CITATION["cff-version"] == "1.2.0" and str(CITATION["version"]) == __version__
    assert CITATION["authors"] == [{"name": "The cembench authors"}]
    (paper,) = CITATION["references"]
    assert paper["title"] == (
        "A Unified Contrastive Energy-based Model for Understanding the Generative Ability of "
        "Adversarial Training"
    )
    who = {f"{author['given-names']} {author['family-names']}" for author in paper["authors"]}
    assert who == {"Yisen Wang", "Yifei Wang", "Jiansheng Yang", "Zhouchen Lin"}
    assert paper["year"] == 2022 and "2203.13455" in paper["url"]
