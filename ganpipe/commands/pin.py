"""pin: writes the settings that the search chose into params.yaml and switches the search off, for repeatable runs."""

from __future__ import annotations

from pathlib import Path

from ..errors import GanpipeError
from ..params import load_params
from ..stages.common import TUNE, read_json, require_no_arguments
from ..stages.train import OVER_TIME, adam_of, searched

PARAMS = Path("params.yaml")


def main(argv: list[str]) -> int:
    """Comments and order of params.yaml stay as they are.

    Raises:
        GanpipeError: this checkout has no result of a search.
    """
    require_no_arguments(argv, "pin", __doc__)
    params = load_params()
    chosen = read_json(TUNE / "best.json", made_by="tune")
    if not chosen:
        raise GanpipeError(
            f"{TUNE / 'best.json'}: holds no result of a search (tune.num_trials is 0); there is nothing to pin"
        )
    (params, config), gan = searched(params), params.train.gan
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(str(PARAMS)) as values:
        if OVER_TIME in chosen:
            values["train"][OVER_TIME] = [part.model_dump(mode="json") for part in params.train.over_time]
            print(f"train.{OVER_TIME}: {len(params.train.over_time)} parts")
        for player in adam_of(chosen):
            key, settings = config.optimizer_keys[player], config.optimizer_of(player).model_dump(mode="json")
            values["gans"].setdefault(gan, {})[key] = settings
            print(f"gans.{gan}.{key}: " + ", ".join(f"{name} {value:g}" for name, value in settings.items()))
        values["tune"]["num_trials"] = 0
    print("tune.num_trials: 0")
    print("the next `dvc repro` trains the same generator; commit params.yaml to keep the choice")
    return 0
