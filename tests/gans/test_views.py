"""Views: the images of two domains, unpaired. Each epoch has every image of a domain once, on any number of workers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from ganpipe.data.loading.order import SampleOrder, share
from ganpipe.errors import GanpipeError
from ganpipe.gans.draws import derive_seed
from ganpipe.gans.spec import FieldReader, Order, View

NUM = {0: 12, 1: 7}
"""Images of each domain."""
ORIGINS = {"horse": View("image", "label", 0), "zebra": View("image", "label", 1)}


class Domains:
    """Images that are numbers: those of domain 0 lie between those of domain 1."""

    def __init__(self) -> None:
        self.labels_N = np.array([int(number % 3 == 2 or number == 18) for number in range(19)])
        assert {label: int((self.labels_N == label).sum()) for label in NUM} == NUM

    def __len__(self) -> int:
        return len(self.labels_N)

    def rows(self, indices: np.ndarray, fields: object = None) -> dict[str, np.ndarray]:
        return {"image": np.asarray(indices, np.int64), "label": self.labels_N[indices]}


def reader(seed: int = 0, origins: dict[str, View] | None = None) -> FieldReader:
    def order(members: Sequence[int] | np.ndarray, group: str) -> Order:
        return SampleOrder(len(members), derive_seed("order", group, seed)).indices

    return FieldReader(origins or ORIGINS, Domains(), order, seed)


def read(start: int, stop: int, seed: int = 0) -> dict[str, Tensor]:
    return reader(seed).read(start, stop, lambda rows: rows)


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_each_epoch_has_every_image_of_a_domain_once(epoch: int) -> None:
    labels_N = Domains().labels_N
    for label, name in enumerate(ORIGINS):
        num = NUM[label]
        seen = read(epoch * num, (epoch + 1) * num)[name]
        assert sorted(seen.tolist()) == np.flatnonzero(labels_N == label).tolist()
    assert read(0, 12)["horse"].tolist() != read(12, 24)["horse"].tolist()


def test_the_domains_are_not_paired() -> None:
    found = read(0, 12 * 7)
    partners = {horse: set() for horse in found["horse"].tolist()}
    for horse, zebra in zip(found["horse"].tolist(), found["zebra"].tolist(), strict=True):
        partners[horse].add(zebra)
    assert min(map(len, partners.values())) > 1  # over the epochs, an image stands beside different ones
    alike = FieldReader(
        {"first": View("image", "label", 0), "second": View("image", "label", 0)},
        Domains(),
        lambda members, group: SampleOrder(len(members), 1).indices,
        0,
    ).read(0, 12, lambda rows: rows)
    assert torch.equal(alike["first"], alike["second"])  # one domain has one order


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5])
def test_the_shares_of_any_number_of_workers_are_the_batch(num_workers: int) -> None:
    for start in (0, 8, 16, 800):
        whole = read(start, start + 8)
        shares = [read(*share(start, 8, rank, num_workers)) for rank in range(num_workers)]
        for name, rows in whole.items():
            assert torch.equal(torch.cat([part[name] for part in shares]), rows)


def test_the_order_depends_on_the_seed() -> None:
    assert not torch.equal(read(0, 12, seed=0)["horse"], read(0, 12, seed=1)["horse"])


def test_a_domain_without_images_is_named() -> None:
    with pytest.raises(GanpipeError) as caught:
        reader(origins={"horse": View("image", "label", 0), "unicorn": View("image", "label", 2)})
    assert str(caught.value) == "no image of the split has the class 2 in its field 'label'"
