"""What training reads: the same images in the same order, wherever they are stored."""

from dataclasses import replace

import pytest
import torch

from cembench.data.digits import Digits
from cembench.data.loading import load_training
from cembench.data.store import Store
from cembench.data.store.joined import Joined
from cembench.models.checkpoint import load_checkpoint, weights_digest
from cembench.training.feed import Feed
from cembench.training.train import train
from cembench.training.trainer import Trainer
from cembench.util.errors import CembenchError
from cembench.util.processes.distributed import ALONE, World
from cembench.util.rng import generator_of
from tests.conftest import experiment
from tests.support.divergence import stopping_in_step
from tests.support.ranks import together
from tests.support.scans import write_scans

CPU = torch.device("cpu")
AT = {"name": "at", "negatives": {"steps": 1}}
CROPPED = {"name": "digits", "crop": 1}


class Elsewhere(Store):
    """Images that are never in memory as one tensor, and never all asked for at once."""

    def __init__(self, store):
        self.store, self.shape = store, store.shape

    def __len__(self):
        return len(self.store)

    def batch(self, rows):
        assert len(rows) < 1000
        return self.store.batch(rows)

    def to(self, device):
        return self


@pytest.fixture
def elsewhere(monkeypatch):
    load = Digits.load

    def moved(self, split):
        found = load(self, split)
        return replace(found, store=Elsewhere(found.store))

    monkeypatch.setattr(Digits, "load", moved)
    monkeypatch.setattr("cembench.data.split.BATCH_BYTES", 64 * 100)


@pytest.mark.parametrize("more", [{}, {"epoch_images": 700}], ids=["passes", "epoch_images"])
def test_weights_do_not_depend_on_where_images_are_stored(tmp_path, request, more):
    settings = experiment(method=AT, data=CROPPED, epochs=2, **more)
    first = train(settings, tmp_path / "memory").read_bytes()
    request.getfixturevalue("elsewhere")
    assert train(settings, tmp_path / "elsewhere").read_bytes() == first


def test_weights_do_not_depend_on_who_decodes(tmp_path, monkeypatch):
    folder = write_scans(tmp_path / "scans", range(200))

    def weights(name, **how):
        data = {"name": "parquet", "root": str(folder), "mode": "L", **how}
        settings = experiment(
            method="standard", data=data, epochs=1, batch_size=64, save_every=1e-9
        )
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "step", stopping_in_step(2))
            train(settings, tmp_path / name)
        file = train(settings, tmp_path / name, resume=True)
        return weights_digest(load_checkpoint(file)[0].state_dict())

    ways = ({}, {"store": "disk"}, {"cache": False, "workers": 0}, {"cache": False, "workers": 2})
    assert len({weights(str(number), **how) for number, how in enumerate(ways)}) == 1


def read(feed):
    order = feed.order(1, torch.Generator().manual_seed(5))
    return [(batch.images, batch.labels) for batch in feed.read(order, 2)]


@pytest.mark.parametrize("images", [None, 500])
def test_two_processes_read_what_one_reads(images):
    settings = experiment(epoch_images=images)
    whole = read(Feed(settings, CPU, ALONE))
    assert len(whole) == (8 if images is None else 3) - 2
    halves = [Feed(settings, CPU, ALONE) for _ in range(2)]
    for rank, feed in enumerate(halves):
        feed.world = World(rank, 2)
    for one, first, second in zip(whole, *map(read, halves), strict=True):
        for part in range(2):
            assert torch.equal(torch.cat([first[part], second[part]]), one[part])


def test_one_process_makes_the_fingerprint_for_all(tmp_path, monkeypatch):
    made = []
    of = Joined.batches
    monkeypatch.setattr(Joined, "batches", lambda *args: made.append(1) or of(*args))

    def work():
        from cembench.util.processes.distributed import world

        return Feed(experiment(), CPU, world()).fingerprint, len(made)

    (first, often), (second, never) = together(tmp_path, work)
    assert first == second == Digits().load("train").fingerprint
    assert often > 0 and never == 0


def test_the_parts_of_a_training_split_are_all_of_it_in_its_order():
    whole, loaded = Digits().load("train"), load_training(Digits(), 0.1)
    assert loaded.fingerprint == whole.fingerprint
    assert torch.equal(loaded.wholes[0].batch(slice(100, 150)), whole.batch(slice(100, 150)))


def test_an_error_of_one_process_is_that_of_all(tmp_path, monkeypatch):
    from cembench.util.processes.distributed import world

    load = Digits.load

    def broken(self, split):
        if world().rank == 1:
            raise CembenchError("no such disk")
        return load(self, split)

    def work():
        monkeypatch.setattr(Digits, "load", broken)
        with pytest.raises(CembenchError, match="no such disk"):
            world().on_all_ranks(lambda: Feed(experiment(), CPU, world()))
        return True

    assert together(tmp_path, work) == [True, True]


@pytest.mark.parametrize("more", [{}, {"epoch_images": 256}], ids=["passes", "epoch_images"])
def test_each_branch_has_an_order_and_an_augmentation_of_its_own(more):
    method = {"name": "dat", "augment": {"cutout": 8}, "density_augment": {"crop": 0}}
    settings = experiment(method=method, data=CROPPED, epochs=11, batch_size=64, **more)
    feed = Feed(settings, CPU, ALONE)
    order = feed.order(0, generator_of(0, "cpu"))
    assert len(order) == 2 and not torch.equal(*order)
    batch = next(feed.read(order, 0))
    assert torch.equal(batch.labels, feed.training.labels[order[:, :64].flatten()])
    clear = feed.training.pixels(order[1, :64])
    attacked, data = feed.pixels(batch, generator_of(0, "cpu")).chunk(2)
    assert torch.equal(data, clear)
    assert (attacked == 0).float().mean() > 1.3 * (clear == 0).float().mean()


def test_processes_share_both_branches_of_a_batch():
    settings = experiment(method="dat", epochs=11, batch_size=64)
    whole = Feed(settings, CPU, ALONE)
    order = whole.order(0, generator_of(0, "cpu"))
    parts = [Feed(settings, CPU, ALONE) for _ in range(2)]
    for rank, part in enumerate(parts):
        part.world = World(rank, 2)
    batches = [next(part.read(order, 0)).images.unflatten(0, (2, 32)) for part in parts]
    assert torch.equal(torch.cat(batches, 1).flatten(0, 1), next(whole.read(order, 0)).images)


def test_autoaugment_is_refused_where_white_is_not_255():
    method = {"name": "at", "augment": {"autoaugment": True}}
    with pytest.raises(CembenchError, match="needs images of 256 levels, and these have 17"):
        Feed(experiment(method=method), CPU, ALONE)
