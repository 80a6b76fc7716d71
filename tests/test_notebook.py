"""The example notebook, in a kernel."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOK = Path(__file__).parents[1] / "examples/notebook.ipynb"


def kinds(notebook):
    """Return of each output of each cell what it is: text and picture, a table, …"""
    return [
        [(one.output_type, *sorted(one.get("data", {}))) for one in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


@pytest.fixture
def committed():
    return nbformat.read(NOTEBOOK, 4)


def test_the_committed_notebook_is_small_and_has_no_errors(committed):
    assert NOTEBOOK.stat().st_size < 200_000
    assert not {"error", "stream"} & {kind for cell in kinds(committed) for kind, *_ in cell}


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_was_committed(committed, tmp_path):
    expected = kinds(committed)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(committed, timeout=300, resources=place).execute()
    assert kinds(committed) == expected
    training, measuring = (committed.cells[number].outputs for number in (3, 5))
    bars = [one.data["text/plain"] for one in training if set(one.data) == {"text/plain"}]
    assert [bar.split()[0] for bar in bars] == ["at", "standard"]  # one each, at its end
    assert all("━" * 20 in bar and "epoch 4" in bar for bar in bars)
    shown = [one.data["text/plain"].split()[0] for one in measuring[:-1]]
    assert shown == ["protocol-ef3c98", "samples"] * 2
