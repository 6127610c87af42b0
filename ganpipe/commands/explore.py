"""explore: what a generator's latents do, as pictures: interpolation, mixing, arithmetic, directions, projection."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from .. import environment, exploring
from ..errors import GanpipeError
from ..exploring.explored import Explored
from ..params import load_params
from ..registry.open_model import OpenedGenerator, open_generator
from ..registry.versions import CHAMPION
from ..section import nearest
from ..tracking.connection import with_retries
from ..tracking.runs import Tracker
from . import given, output

_PATIENCE_SECONDS = 10.0


def main(argv: list[str]) -> int:
    kind = _kind(argv)
    exploration_class = exploring.load(kind)
    parser = _parser(kind, exploration_class.tells)
    exploration_class.add_options(parser)
    options = parser.parse_args(argv[1:])
    folder = options.out or exploring.FOLDER / kind
    output.require_folder(folder, "--out")
    if not 0 < options.truncation <= 1:
        raise GanpipeError(f"--truncation: got {options.truncation:g}; expected a number above 0 and at most 1")
    params = load_params()
    exploration = exploration_class(options, params)
    tracker = Tracker.at(environment.home(), params.register_.experiment)
    with open_generator(options.model, tracker, params.register_.model_name) as model:
        explored = _explored(model, options, tracker, params.register_.model_name)
        exploration.require(explored)
        files = {**exploration.run(explored), exploring.ABOUT: _about(model, options)}
        for name, content in files.items():
            output.write(folder / name, content)
            print(folder / name)
        print(f"MLflow   {_keep(model, tracker, kind, files)}")
    return 0


def _kind(argv: list[str]) -> str:
    """The kind of exploration, which is the first argument."""
    parser = argparse.ArgumentParser(
        prog="ganpipe explore",
        description=__doc__,
        usage="ganpipe explore [-h] KIND ...",
        epilog="`ganpipe explore KIND --help` says more.",
    )
    names = exploring.names()
    parser.add_argument("kind", metavar="KIND", help=f"one of {', '.join(names)}")
    if argv[:1] in (["-h"], ["--help"]):
        parser.parse_args(argv)
    if not argv or argv[0].startswith("-"):
        raise GanpipeError(f"the kind of exploration is missing: `ganpipe explore KIND`; {nearest('', names)}")
    return argv[0]


def _parser(kind: str, tells: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"ganpipe explore {kind}", description=f"{tells}.")
    parser.add_argument(
        "--model",
        default=f"@{CHAMPION}",
        help="a model URI, the folder of a package, or a version or alias of register.model_name; default: @champion",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"the folder for its files; default: {exploring.FOLDER / kind}; {output.RULE}",
    )
    parser.add_argument(
        "--truncation",
        type=float,
        default=1.0,
        help="above 0, at most 1 (default): lower values give less varied images",
    )
    given.add_options(parser, without_label="drawn from the seeds")
    return parser


def _explored(model: OpenedGenerator, options: argparse.Namespace, tracker: Tracker, model_name: str) -> Explored:
    generator = model.generator
    return Explored(
        name=model.name,
        gan_name=generator.description["gan"],
        gan=generator.gan,
        progress=generator.progress,
        given={name: _row(model, name, value) for name, value in given.values_of(model, options).items()},
        truncation=options.truncation,
        open=partial(_open, options=options, tracker=tracker, model_name=model_name),
    )


def _row(model: OpenedGenerator, name: str, value: Any) -> Any:
    """The row of a condition that an option gives: words as the numbers of their tokens."""
    if not isinstance(value, str):
        return value
    try:
        return model.generator.gan.conditions[name].parse(value, model.generator.description["names"][name])
    except ValueError as error:
        raise GanpipeError(f"{name} {error}") from None


@contextmanager
def _open(asked: str, options: argparse.Namespace, tracker: Tracker, model_name: str) -> Iterator[Explored]:
    with open_generator(asked, tracker, model_name) as model:
        yield _explored(model, options, tracker, model_name)


def _about(model: OpenedGenerator, options: argparse.Namespace) -> bytes:
    """What was explored, and how, for the report."""
    left_out = ("model", "out")
    chosen = {name: value for name, value in vars(options).items() if name not in left_out and value not in (None, [])}
    content = {"model": model.name, "options": chosen}
    return (json.dumps(content, indent=2, sort_keys=True, default=str) + "\n").encode()


def _keep(model: OpenedGenerator, tracker: Tracker, kind: str, files: Mapping[str, bytes]) -> str:
    """Log the files to the run of the version. The command does not fail if MLflow does not answer.

    Returns:
        What happened, for people.
    """
    if model.version is None or not model.version.run_id:
        return f"not logged: {model.name} is no version in the registry"
    run_id, place = model.version.run_id, f"{exploring.FOLDER.name}/{kind}"
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            client = tracker.client()
            with_retries(lambda: client.log_artifacts(run_id, folder, place), tracker.uri, _PATIENCE_SECONDS)
        except GanpipeError as error:
            return f"not logged: {error}"
    return f"{place} of the run {run_id} of {model.name}"
