"""Length-grouped batches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loraloop.trainer.sampler import LengthGrouped


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=300), batch=st.integers(1, 20), epoch=st.integers(0, 3)
)
def test_every_epoch_visits_every_row_once(lengths, batch, epoch):
    """An epoch is a permutation of the rows, the same every time it is drawn."""
    sampler = LengthGrouped(lengths, batch, seed=5)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths)))
    assert order == list(sampler)
    assert len(sampler) == len(lengths)


def padded(order, lengths, batch):
    """Share of a batch's tokens that is useful."""
    ends = [lengths[order[i : i + batch]] for i in range(0, len(order), batch)]
    return sum(group.sum() for group in ends) / sum(group.max() * len(group) for group in ends)


def test_batches_hold_rows_of_similar_length():
    """Grouping makes nearly all tokens of a batch useful where a random order wastes a third."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 200, size=2000)
    grouped = np.array(list(LengthGrouped(lengths, 16, seed=0)))
    assert padded(grouped, lengths, 16) > 0.97
    assert padded(rng.permutation(2000), lengths, 16) < 0.7


def test_order_differs_between_epochs_and_seeds_and_is_not_by_length():
    """Epochs and seeds draw different orders, and a batch's length says nothing about its place."""
    lengths = np.random.default_rng(0).integers(20, 200, size=2000)
    first, second, other = LengthGrouped(lengths, 16, 0), LengthGrouped(lengths, 16, 0), LengthGrouped(lengths, 16, 1)
    second.set_epoch(1)
    assert len({tuple(first), tuple(second), tuple(other)}) == 3
    means = lengths[np.array(list(first))].reshape(-1, 16).mean(1)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3
