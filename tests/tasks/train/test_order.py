"""The order of training images: any stretch of it alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from labelmill.tasks.train.order import ShuffledOrder, hash_seed

COUNTS = st.integers(1, 30)


@given(count=COUNTS, seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 5))
def test_at_epoch_holds_each_image_once(count, seed, epoch):
    places, epochs = ShuffledOrder(count, seed=seed, name="labelled").at(epoch * count, (epoch + 1) * count)
    assert sorted(places.tolist()) == list(range(count))
    assert set(epochs.tolist()) == {epoch}


@given(count=COUNTS, start=st.integers(0, 60), length=st.integers(1, 60), cut=st.integers(0, 60))
def test_at_stretch_is_the_same_alone_in_pieces_and_after_others(count, start, length, cut):
    stop, middle = start + length, start + min(cut, length)
    used = ShuffledOrder(count, seed=3, name="labelled")
    pieces = [used.at(start, middle), used.at(middle, stop)]
    used.at(0, 7)
    for which, alone in enumerate(ShuffledOrder(count, seed=3, name="labelled").at(start, stop)):
        assert np.array_equal(np.concatenate([piece[which] for piece in pieces]), alone)
        assert np.array_equal(used.at(start, stop)[which], alone)


def test_at_orders_of_epochs_seeds_and_names_differ():
    orders = [
        tuple(ShuffledOrder(50, seed=seed, name=name).at(50 * epoch, 50 * epoch + 50)[0].tolist())
        for seed in (0, 1) for name in ("labelled", "unlabelled") for epoch in (0, 1)
    ]  # fmt: skip
    assert len(set(orders)) == len(orders)


def test_hash_seed_stays_the_same_between_releases():
    assert hash_seed("step", 0, 7, 1) == 5416199086279401506
    assert ShuffledOrder(5, seed=0, name="labelled").at(0, 10)[0].tolist() == [2, 4, 0, 3, 1, 2, 0, 1, 4, 3]
