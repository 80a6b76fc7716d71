"""Seeds of the global generators."""

import pytest
import torch

from cembench.util import rng


@pytest.mark.parametrize("gpus", [True, False])
def test_a_seed_gives_the_numbers_of_torch(monkeypatch, gpus):
    monkeypatch.setattr(rng, "_gpus_here", lambda: gpus)
    with rng.fork_rng():
        torch.manual_seed(2**60 + 1)
        numbers = torch.rand(5)
        rng.seed_torch(2**60 + 1)
        assert torch.equal(torch.rand(5), numbers)


def test_gpus_that_start_later_know_the_seed_and_none_costs_no_memory(monkeypatch):
    kept = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", kept.append)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for gpus in (True, False):
        monkeypatch.setattr(rng, "_gpus_here", lambda gpus=gpus: gpus)
        with rng.fork_rng():
            rng.seed_torch(7)
    assert kept == [7]
