"""`ganpipe promote`, `ganpipe rollback`: makes a version the champion, with or without the gate, and takes it back."""

from __future__ import annotations

import argparse
import sys

from .. import environment
from ..params import load_params
from ..registry.promotion import Promotion, PromotionRequest, promote, roll_back
from ..stages.register import VersionMeasurement
from ..tracking.runs import Tracker


def _parser(command: str) -> argparse.ArgumentParser:
    says = "make a version the champion" if command == "promote" else "return the champion alias to where it was before"
    parser = argparse.ArgumentParser(prog=f"ganpipe {command}", description=says)
    parser.add_argument("--model", help="registered model; default: register.model_name of params.yaml")
    if command == "promote":
        parser.add_argument("--version", type=int, help="number of the version; default: the challenger")
        parser.add_argument("--force", action="store_true", help="whatever the gate says; needs --reason")
    parser.add_argument("--reason", help="why, for the alias history")
    parser.add_argument("--who", help="who, for the alias history; default: $GANPIPE_USER, else the login name")
    return parser


def main(argv: list[str]) -> int:
    """`argv[0]` is the command: promote or rollback. Exit code 1 if the gate refuses."""
    command = argv[0]
    options = _parser(command).parse_args(argv[1:])
    params = load_params()
    settings = params.register_
    if options.model is not None:
        settings = settings.model_copy(update={"model_name": options.model})
    tracker = Tracker.at(environment.home(), settings.experiment)
    if command == "rollback":
        _show(settings.model_name, roll_back(tracker, settings.model_name, options.reason, options.who))
        return 0
    measurement = VersionMeasurement(params, tracker)
    request = PromotionRequest(options.version, options.force, options.reason, options.who)
    done = promote(tracker, settings, measurement.measure, measurement.protocol, request)
    _show(settings.model_name, done)
    if done.champion == done.version:
        return 0
    print(
        f"error: the gate does not make version {done.version} of {settings.model_name} the champion: "
        f"{done.reasons[-1]} To do it all the same: --force --reason WHY",
        file=sys.stderr,
    )
    return 1


def _show(name: str, done: Promotion) -> None:
    for sentence in done.reasons:
        print(sentence)
    if done.champion == done.version:
        print(f"champion: models:/{name}/{done.version} (models:/{name}@champion)")
