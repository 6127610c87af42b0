"""Who gets which sample when."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ganpipe.data.loading.lanes import LanedOrder, Shuffling
from ganpipe.data.loading.order import SampleOrder, share


@settings(deadline=None)
@given(num_samples=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**9))
def test_each_epoch_is_a_permutation(num_samples: int, seed: int, epoch: int) -> None:
    start = epoch * num_samples
    indices = SampleOrder(num_samples, seed).indices(start, start + num_samples)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(np.sort(indices), np.arange(num_samples))


@settings(deadline=None)
@given(num_samples=st.integers(1, 200), cuts=st.lists(st.integers(0, 1000), min_size=2, max_size=8))
def test_the_stream_does_not_depend_on_how_it_is_read(num_samples: int, cuts: list[int]) -> None:
    order = SampleOrder(num_samples, 5)
    cuts = sorted(cuts)
    pieces = [order.indices(lo, hi) for lo, hi in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(pieces), order.indices(cuts[0], cuts[-1]))


def test_epochs_and_seeds_differ() -> None:
    order = SampleOrder(1000, 0)
    first, second = order.indices(0, 1000), order.indices(1000, 2000)
    other = SampleOrder(1000, 1).indices(0, 1000)
    for one, two in ((first, second), (first, other), (first, np.arange(1000))):
        assert (one == two).mean() < 0.02  # one in a thousand agrees by chance


def test_the_order_is_this_one_on_every_machine_and_version() -> None:
    # A change here changes what every seed means: do so knowingly.
    assert SampleOrder(60_000, 0).indices(59_998, 60_003).tolist() == [3769, 50111, 59636, 31733, 17771]


@pytest.mark.parametrize("num_samples", [7, 16, 100])
def test_every_sample_is_equally_likely_everywhere(num_samples: int) -> None:
    num_epochs = 4000
    table = SampleOrder(num_samples, 3).indices(0, num_samples * num_epochs).reshape(num_epochs, num_samples)
    for position in (0, num_samples // 2, num_samples - 1):
        counts = np.bincount(table[:, position], minlength=num_samples)
        assert stats.chisquare(counts).pvalue > 1e-4
    pairs = table[:, 0] * num_samples + table[:, 1]  # neighbours are independent too
    counts = np.bincount(pairs, minlength=num_samples**2).reshape(num_samples, num_samples)
    assert np.trace(counts) == 0
    if num_samples <= 16:
        assert stats.chisquare(counts[~np.eye(num_samples, dtype=bool)]).pvalue > 1e-4


def test_all_permutations_of_few_samples_occur() -> None:
    table = SampleOrder(3, 8).indices(0, 3 * 3000).reshape(3000, 3)
    _, counts = np.unique(table @ [9, 3, 1], return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 300


def test_neighbours_are_far_apart() -> None:
    indices = SampleOrder(100_000, 0).indices(0, 100_000)
    steps = np.abs(np.diff(indices))
    assert abs(steps.mean() / (100_000 / 3) - 1) < 0.02  # the mean distance of two uniform numbers is a third
    assert abs(np.corrcoef(indices[:-1], indices[1:])[0, 1]) < 0.02


def test_a_billion_samples_need_no_memory_and_no_time() -> None:
    order = SampleOrder(10**9, 1)
    start = time.perf_counter()
    indices = order.indices(123 * 10**9 - 2000, 123 * 10**9 + 2000)
    assert time.perf_counter() - start < 1
    assert len(np.unique(indices[:2000])) == len(np.unique(indices[2000:])) == 2000
    assert indices.min() >= 0
    assert indices.max() < 10**9
    assert indices.max() > 9.9e8


@settings(deadline=None)
@given(start=st.integers(0, 10**12), num=st.integers(0, 5000), world_size=st.integers(1, 300))
def test_shares_partition_the_batch(start: int, num: int, world_size: int) -> None:
    bounds = [share(start, num, rank, world_size) for rank in range(world_size)]
    assert bounds[0][0] == start
    assert bounds[-1][1] == start + num
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    sizes = [hi - lo for lo, hi in bounds]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("rank", "world_size"), [(1, 1), (-1, 2), (0, 0)])
def test_no_share_for_a_rank_that_is_not_there(rank: int, world_size: int) -> None:
    with pytest.raises(ValueError, match="rank"):
        share(0, 8, rank, world_size)


def test_bad_ranges() -> None:
    with pytest.raises(ValueError, match="samples"):
        SampleOrder(0, 0)
    with pytest.raises(ValueError, match="positions"):
        SampleOrder(5, 0).indices(3, 2)
    assert SampleOrder(5, 0).indices(3, 3).shape == (0,)


SHARDS = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)


@settings(deadline=None)
@given(sizes=SHARDS, window=st.integers(1, 14), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
def test_an_epoch_in_windows_has_every_sample_once(sizes: list[int], window: int, seed: int, epoch: int) -> None:
    order, num_samples = SampleOrder(np.array(sizes), seed, window), sum(sizes)
    indices = order.indices(epoch * num_samples, (epoch + 1) * num_samples)
    np.testing.assert_array_equal(np.sort(indices), np.arange(num_samples))


@settings(deadline=None)
@given(sizes=SHARDS, window=st.integers(1, 14), position=st.integers(0, 3000))
def test_a_window_takes_its_samples_from_its_shards(sizes: list[int], window: int, position: int) -> None:
    order = SampleOrder(np.array(sizes), 3, window)
    held, end = order.window_at(position)
    shards = np.searchsorted(np.cumsum(sizes), order.indices(position, end), side="right")
    assert len(held) <= window
    assert set(shards.tolist()) <= set(held)
    following, _ = order.window_at(end)
    assert end % sum(sizes) == 0 or not set(held) & set(following)  # within an epoch, each shard is in one window


@settings(deadline=None)
@given(sizes=SHARDS, window=st.integers(1, 14), cuts=st.lists(st.integers(0, 1000), min_size=2, max_size=8))
def test_windows_do_not_depend_on_how_they_are_read(sizes: list[int], window: int, cuts: list[int]) -> None:
    order, cuts = SampleOrder(np.array(sizes), 5, window), sorted(cuts)
    pieces = [order.indices(lo, hi) for lo, hi in itertools.pairwise(cuts)]
    whole = SampleOrder(np.array(sizes), 5, window).indices(cuts[0], cuts[-1])
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_window_of_all_shards_is_the_order_without_shards() -> None:
    sizes = np.array([30, 0, 50, 20])
    for window in (None, 4, 9):
        np.testing.assert_array_equal(
            SampleOrder(sizes, 7, window).indices(0, 250), SampleOrder(100, 7).indices(0, 250)
        )


def test_windows_mix_their_shards_and_epochs_differ() -> None:
    sizes = np.full(20, 100)
    order = SampleOrder(sizes, 0, 4)
    shards = order.indices(0, 400) // 100
    assert len(set(shards.tolist())) == 4
    assert len(set(shards[:40].tolist())) == 4  # not one shard after the other
    assert sorted(set(shards.tolist())) != sorted(set((order.indices(2000, 2400) // 100).tolist()))


def test_the_order_in_windows_is_this_one_on_every_machine_and_version() -> None:
    order = SampleOrder(np.full(12, 5000), 0, 4)
    assert order.indices(59_998, 60_003).tolist() == [10872, 287, 26217, 22020, 24668]


@pytest.mark.parametrize(("sizes", "window"), [([0, 0], None), ([3], 0)])
def test_what_is_no_order(sizes: list[int], window: int | None) -> None:
    with pytest.raises(ValueError, match="an order of"):
        SampleOrder(np.array(sizes), 0, window)


LANES = st.tuples(st.integers(1, 6), st.integers(1, 4)).map(lambda pair: (pair[0], pair[0] * pair[1]))
"""Lanes, and a batch size that they divide."""


@settings(deadline=None, max_examples=25)
@given(sizes=SHARDS, window=st.integers(1, 14) | st.none(), lanes=LANES, seed=st.integers(0, 2**63))
def test_lanes_see_every_sample_equally_often(
    sizes: list[int], window: int | None, lanes: tuple[int, int], seed: int
) -> None:
    num_samples, (num_lanes, batch_size) = sum(sizes), lanes
    if num_samples < num_lanes:
        with pytest.raises(ValueError, match="0 samples"):
            LanedOrder(np.array(sizes), seed, Shuffling(window, num_lanes, batch_size))
        return
    order = LanedOrder(np.array(sizes), seed, Shuffling(window, num_lanes, batch_size))
    num_epochs = 3
    part = batch_size // num_lanes
    num_batches = -(-num_epochs * num_samples // batch_size)
    table = order.indices(0, num_batches * batch_size).reshape(num_batches, num_lanes, part)
    for lane in range(num_lanes):
        start, stop = num_samples * lane // num_lanes, num_samples * (lane + 1) // num_lanes
        seen = table[:, lane].ravel()
        assert start <= seen.min() <= seen.max() < stop
        for epoch in range(len(seen) // (stop - start)):
            of_epoch = seen[epoch * (stop - start) : (epoch + 1) * (stop - start)]
            np.testing.assert_array_equal(np.sort(of_epoch), np.arange(start, stop))


@settings(deadline=None, max_examples=25)
@given(sizes=SHARDS, window=st.integers(1, 14), lanes=LANES, seed=st.integers(0, 2**63), step=st.integers(0, 60))
def test_a_lane_needs_its_own_shards(
    sizes: list[int], window: int, lanes: tuple[int, int], seed: int, step: int
) -> None:
    num_lanes, batch_size = lanes
    if sum(sizes) < num_lanes:
        return
    order = LanedOrder(np.array(sizes), seed, Shuffling(window, num_lanes, batch_size))
    start, stop = step * batch_size, (step + 2) * batch_size
    stops, part = np.cumsum(sizes), batch_size // num_lanes
    for lane, needed in enumerate(order.needed(start, stop)):
        for batch in range(step, max(step + 2, needed.until // batch_size)):
            first = batch * batch_size + lane * part
            used = np.searchsorted(stops, order.indices(first, first + part), side="right")
            assert set(used) <= set(needed.now)
        if needed.later:
            first = needed.until + lane * part
            used = np.searchsorted(stops, order.indices(first, first + part), side="right")
            assert set(used) <= {*needed.now, *needed.later}


def test_a_single_lane_is_the_order_without_lanes() -> None:
    sizes = np.array([30, 0, 7, 20])
    for window in (None, 2):
        laned = LanedOrder(sizes, 3, Shuffling(window, 1, 8))
        np.testing.assert_array_equal(laned.indices(5, 300), SampleOrder(sizes, 3, window).indices(5, 300))


def test_workers_have_lanes_of_their_own() -> None:
    order = LanedOrder(np.full(64, 100), 0, Shuffling(4, 8, 64))
    for world_size in (1, 2, 4, 8):
        shares = [share(0, 64, rank, world_size) for rank in range(world_size)]
        lanes = [lane for mine in shares for lane in order.lanes_at(*mine)]
        assert lanes == list(range(8))
    assert [list(order.lanes_at(*share(0, 64, rank, 16))) for rank in (0, 1, 15)] == [[0], [0], [7]]
    assert list(order.lanes_at(5, 5)) == []
