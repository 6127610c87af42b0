"""Samples that are turned left to right: one in two, the same in every training, all pictures of a sample together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ganpipe.data.loading.order import mirrored
from ganpipe.gans.spec import Derived, Picture, Stored
from ganpipe.training.feed import Feed


def test_one_in_two_by_seed_and_position() -> None:
    turned = mirrored(7, 0, 10_000)
    assert 0.48 < turned.mean() < 0.52
    assert abs(np.corrcoef(turned[:-1], turned[1:])[0, 1]) < 0.05
    np.testing.assert_array_equal(mirrored(7, 300, 400), turned[300:400])
    assert 0.45 < (mirrored(8, 0, 10_000) == turned).mean() < 0.55


class Pairs:
    """Sample i has i in the left column of both pictures, and in its label."""

    shard_sizes_S = np.array([50])

    def __len__(self) -> int:
        return 50

    def rows(self, indices: np.ndarray, fields: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        image = np.zeros((len(indices), 1, 4, 4), np.uint8)
        image[..., 0] = indices[:, None, None]
        frames = np.zeros((len(indices), 2, 1, 4, 6), np.uint8)
        frames[..., 0] = indices[:, None, None, None]
        return {"image": image, "frames": frames, "label": indices.copy()}


def brightest(images: torch.Tensor, draws: object) -> torch.Tensor:
    return images.amax((1, 2))


def test_all_pictures_of_a_sample_are_turned_together_and_labels_stay() -> None:
    origins = {
        "image": Stored("image"),
        "past": Stored("frames"),
        "label": Stored("label"),
        "columns": Derived("image", brightest, Picture(size=4, channels=1)),
    }
    feed = Feed(Pairs(), origins, 3, torch.device("cpu"), mirror=True)  # type: ignore[arg-type]
    plain = Feed(Pairs(), origins, 3, torch.device("cpu"))  # type: ignore[arg-type]
    found, before = feed(0, 200), plain(0, 200)
    torch.testing.assert_close(found["label"], before["label"])
    turned = (found["image"] != before["image"]).flatten(1).any(1)
    assert 0.3 < turned.float().mean() < 0.7
    for name, width in (("image", 4), ("past", 6)):
        assert found[name].shape[-1] == width
        torch.testing.assert_close(found[name][turned], before[name][turned].flip(-1))
        torch.testing.assert_close(found[name][~turned], before[name][~turned])
    torch.testing.assert_close(found["columns"][turned], before["columns"][turned].flip(-1))
    again = feed(50, 60)
    torch.testing.assert_close(again["image"], found["image"][50:60])
