"""What a sweep runs, and what it says of its seeds; `test_deployments.py` runs sweeps."""

from __future__ import annotations

import pytest

from ganpipe.errors import GanpipeError
from pipelines.sweep import Dataset, _combinations, _over_seeds

DATASETS = [Dataset(name="all"), Dataset(name="few", overrides={"data.limit": 9, "train.seed": 7})]


def test_every_gan_meets_every_dataset_with_every_seed() -> None:
    found = list(_combinations(["gan", "dcgan", "gan"], DATASETS, [0, 3], {"train.num_images": 5}).values())
    assert [(one.gan, one.dataset, one.seed) for one in found] == [
        (gan, data, seed) for gan in ("gan", "dcgan") for data in ("all", "few") for seed in (0, 3)
    ]
    assert found[3].overrides == {"data.limit": 9, "train.num_images": 5, "train.gan": "gan", "train.seed": 3}
    assert found[3].columns == {"gan": "gan", "dataset": "few", "seed": 3}


def test_without_seeds_that_of_the_settings_is_taken() -> None:
    (name, found), _ = _combinations(["gan"], DATASETS, [None], {}).items()
    assert found.overrides == {"train.gan": "gan"}
    assert found.columns == {"gan": "gan", "dataset": "all"}
    assert name.endswith("-gan-all")


def test_two_datasets_of_one_name_are_refused() -> None:
    with pytest.raises(GanpipeError, match="expected each once"):
        _combinations(["gan"], [DATASETS[0], DATASETS[0]], [None], {})


def test_the_seeds_end_in_mean_and_deviation() -> None:
    def row(gan: str, seed: int, **values: object) -> dict[str, object]:
        return {"gan": gan, "dataset": "all", "seed": seed, "experiment": "e", "error": "", **values}

    rows = [row("gan", 0, fid=10.0), row("gan", 1, fid=14.0), row("gan", 2, error="lost"), row("dcgan", 0, fid=1.0)]
    assert _over_seeds(rows) == [{"gan": "gan", "dataset": "all", "seeds": 2, "fid": "12 ± 2.8"}]
