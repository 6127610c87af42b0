"""One of several processes that promote at the same moment: python registry_racer.py FOLDER WHO OTHER ROUNDS

Round k: version 2k or 2k + 1 is to replace the champion, which both have to measure again first (so both are past
their look at it), and each waits there for the other. Prints one JSON line a round.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from ganpipe.registry.alias_history import Overtaken
from ganpipe.registry.promotion import PromotionRequest, promote
from ganpipe.registry.settings import RegisterSettings
from ganpipe.tracking.runs import Tracker


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name}: the other one does not come"
        time.sleep(0.001)


def own_protocol(version: ModelVersion) -> str:
    return str(version.tags["ganpipe.protocol"])


def main(folder: Path, who: str, other: str, rounds: int) -> None:
    tracker = Tracker.at(folder, "tests")
    settings = RegisterSettings(model_name="tests", metric="fid_x")
    for number in range(1, rounds + 1):

        def measure_again(version: object, number: int = number) -> dict[str, float]:
            (folder / f"{who}.{number}").touch()
            wait_for(folder / f"{other}.{number}")
            return {"fid_x": 1000.0}

        version = 2 * number + (who > other)
        try:
            done = promote(tracker, settings, measure_again, own_protocol, PromotionRequest(version, by=who))
            outcome = {"moved": done.moved, "says": done.reasons[-1]}
        except Overtaken as error:
            outcome = {"moved": False, "says": str(error)}
        print(json.dumps({"who": who, "version": version, **outcome}), flush=True)
        (folder / f"{who}.{number}.done").touch()
        wait_for(folder / f"{other}.{number}.done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
