"""Order of training images: a fixed function of seed and position, with exact shares of parts."""

import pytest
import torch

from cembench.data.order import Order

MIX = Order(3, (600, 800, 50), (0.3, 0.65, 0.05))


def parts_of(order, rows):
    ends = torch.tensor(order.sizes).cumsum(0)
    return torch.bucketize(rows, ends, right=True).bincount(minlength=len(ends)).tolist()


def test_the_order_is_the_same_for_ever():
    assert Order(0, (10,)).rows(0, 3, 5).tolist() == [8, 1, 2, 4, 7, 3, 9, 6, 5, 0, 5, 0, 6, 4, 9]
    mixed = [6, 13, 4, 1, 7, 8, 12, 10, 3, 11, 9, 11, 9, 5, 10]
    assert Order(3, (6, 8), (0.3, 0.7)).rows(0, 3, 5).tolist() == mixed


@pytest.mark.parametrize("order", [Order(1, (97,)), MIX], ids=["one", "mix"])
def test_the_rows_of_a_step_depend_on_its_position_alone(order):
    whole = order.rows(0, 60, 32)
    again = Order(order.seed, order.sizes, order.shares)
    assert torch.equal(again.rows(41 * 32, 19, 32), whole[41 * 32 :])
    assert torch.equal(again.rows(7 * 32, 3, 32), whole[7 * 32 : 10 * 32])
    assert not torch.equal(Order(9, order.sizes, order.shares).rows(0, 60, 32), whole)


def test_each_pass_has_every_image_once_in_an_order_of_its_own():
    rows = Order(0, (96,)).rows(0, 6, 32).split(96)
    assert all(torch.equal(part.sort().values, torch.arange(96)) for part in rows)
    assert not torch.equal(*rows)


def test_every_batch_has_the_shares_of_the_parts_and_rounding_evens_out():
    batches = MIX.rows(0, 200, 33).split(33)
    for batch in batches:
        for count, share in zip(parts_of(MIX, batch), MIX.shares, strict=True):
            assert abs(count - 33 * share) < 2
    whole = parts_of(MIX, torch.cat(batches))
    assert whole == [round(200 * 33 * share) for share in MIX.shares]
    exact = Order(0, (50, 50), (0.25, 0.75)).rows(0, 10, 32).split(32)
    assert {tuple(parts_of(Order(0, (50, 50)), batch)) for batch in exact} == {(8, 24)}


def test_the_images_of_a_part_come_pass_after_pass_whatever_the_others_have():
    rows = MIX.rows(0, 100, 32)
    own = rows[rows >= 1400]  # 160 images of the last part, which has 50
    assert own.bincount(minlength=1450)[1400:].max() <= 4
    assert torch.equal(own.unique(), torch.arange(1400, 1450))


def test_parts_are_mixed_within_a_batch():
    halves = Order(0, (1000, 1000), (0.5, 0.5)).rows(0, 20, 64).split(32)
    assert {parts_of(MIX, half)[0] for half in halves} != {32, 0}
