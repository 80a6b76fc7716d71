"""Margin losses of attacks: the formulas by hand, and their gradients."""

import pytest
import torch

from cembench.energy import potentials

LOGITS = [[2.0, 0.5, -1.0, 1.2], [0.1, 3.0, 2.9, -4.0], [5.0, 5.0, 1.0, 0.0]]
LABELS = [0, 2, 1]


def by_hand(name, row, y):
    """One row, class by class, as the papers write it."""
    if name == "cross-entropy":
        return row.logsumexp(0) - row[y]
    if name == "probability-margin":
        row = row.softmax(0)
    others = [row[k] for k in range(len(row)) if k != y]
    gap = max(others) - row[y]
    top = row.sort(descending=True).values
    return gap / (top[0] - top[2] + 1e-12) if name == "dlr" else gap


@pytest.mark.parametrize("name", potentials.LOSSES)
def test_losses_of_attacks_and_their_gradients_are_those_of_the_formulas(name):
    logits, y = torch.tensor(LOGITS, requires_grad=True), torch.tensor(LABELS)
    ours = potentials.LOSSES[name](logits, y)
    rows = zip(logits, LABELS, strict=True)
    theirs = torch.stack([by_hand(name, row, label) for row, label in rows])
    torch.testing.assert_close(ours, theirs)
    # At a tie between own class and rival, as in the third row, DLR's order is a choice.
    sums = (values[:2].sum() for values in (ours, theirs))
    found, expected = (torch.autograd.grad(value, logits, retain_graph=True) for value in sums)
    torch.testing.assert_close(found, expected)


def test_margins_are_positive_exactly_where_the_label_is_not_the_likeliest():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 3, generator=generator)
    y = torch.randint(3, (200,), generator=generator)
    wrong = logits.argmax(1) != y
    for name in ("margin", "probability-margin", "dlr"):
        assert torch.equal(potentials.LOSSES[name](logits, y) > 0, wrong)
    two = logits[:, :2]
    assert torch.equal(potentials.margin(two, y.clamp(max=1)) > 0, two.argmax(1) != y.clamp(max=1))
