"""The `ganpipe` command: a table of subcommands, each a module with `main(argv) -> int`, imported when asked for."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from . import __version__
from .environment import apply_defaults, other_code_here, require_usable_path, with_code_of
from .errors import EXIT_MENDABLE, EXIT_UNAVAILABLE, GanpipeError, UnavailableError
from .processes import exit_on_sigterm
from .redaction import redact
from .section import nearest

COMMANDS: dict[str, tuple[str, str]] = {
    "code": ("stages.code", "stage: which code each stage uses, so that only what changed runs again"),
    "ingest": (
        "stages.ingest",
        "stage: fetch the images, write the shards; --watch tells Prefect of new ones",
    ),
    "reference": ("stages.reference", "stage: features of the real images, for FID"),
    "tune": ("stages.tune", "stage: search each player's learning rate and betas"),
    "train": ("stages.train", "stage: train the GAN"),
    "evaluate": ("stages.evaluate", "stage: FID and the other metrics, with their protocol"),
    "register": ("stages.register", "stage: package the generator, pass the gate, set the aliases"),
    "check": ("commands.check", "check all that can be known before long work starts"),
    "summary": ("commands.summary", "the registered model, its FID, and where the pictures are"),
    "data": ("commands.data", "what ingest found in the images: formats, sizes, duplicates, classes; --json"),
    "trials": ("commands.trials", "the trials of the last search, best first; --json"),
    "models": ("commands.models", "versions of the registered model, their aliases and why; --history, --json"),
    "promote": ("commands.promote", "make a version the champion, if the gate agrees; --force --reason"),
    "rollback": ("commands.promote", "return the champion alias to where it was before"),
    "sample": ("commands.sample", "images from a registered model, as a grid or single files"),
    "translate": ("commands.translate", "a folder of images, each made into another by a registered model"),
    "explore": ("commands.explore", "what a model's latents do: interpolation, arithmetic, directions, projection, …"),
    "compare": ("commands.compare", "two models side by side: samples, numbers, differences"),
    "report": ("commands.report", "the last run as one HTML page: report.html"),
    "serve": ("commands.serve", "a page with samples of the champion, and a JSON API"),
    "replay": ("commands.replay", "send to MLflow what runs recorded while it was away"),
    "verify": (
        "commands.verify",
        "whether what a version was made from lies here: code, settings, data, environment",
    ),
    "pin": ("commands.pin", "write what the search chose into params.yaml, so that it is never searched again"),
    "schema": ("commands.schema", "write the JSON schema of params.yaml, for editors"),
    "clean": ("commands.clean", "what interrupted runs and the host's cache hold, and its removal"),
    "up": ("commands.services", "start the background services (Prefect, Ray, MLflow)"),
    "down": ("commands.services", "stop the background services"),
    "services": ("commands.services", "what runs, and where its pages are"),
}
"""Name -> (module below ganpipe, help). A module of several commands gets the name as its first argument."""


def _parser() -> argparse.ArgumentParser:
    width = max(len(name) for name in COMMANDS)
    table = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="ganpipe",
        description="Train, compare, release and reproduce GANs as one pipeline.",
        epilog=f"commands:\n{table}\n\n`ganpipe COMMAND --help` says more. `dvc repro` or `make run` runs the stages.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="ganpipe [-h] [--version] COMMAND ...",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _run(command: str, arguments: list[str]) -> int:
    if command not in COMMANDS:
        raise GanpipeError(f"no command {command!r}; {nearest(command, COMMANDS)}")
    module = COMMANDS[command][0]
    shared = sum(other == module for other, _ in COMMANDS.values()) > 1
    for folder in (Path.cwd(), Path(sys.prefix)):
        require_usable_path(folder)
    apply_defaults()
    exit_on_sigterm()
    main = importlib.import_module(f".{module}", __package__).main
    return int(main([command, *arguments] if shared else arguments))


_OTHER_CODE = "GANPIPE_CODE"


def _run_code_here() -> None:
    """Restart with the code of the checkout that this is called in, because DVC's digests are those of that code."""
    root = other_code_here()
    # The variable is set once this has been tried, so that it is never tried twice.
    if root is None or os.environ.get(_OTHER_CODE) == str(root):
        return
    variables = with_code_of(root, os.environ) | {_OTHER_CODE: str(root)}
    os.execve(sys.executable, [sys.executable, "-m", "ganpipe", *sys.argv[1:]], variables)


def _show_without_secrets(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An error that nobody foresaw: its text may hold a URL with a password, and DVC's output is logged by Prefect."""
    print(redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        Its exit code; 2 for an error that the user can mend, 75 for one that may pass by itself (each one line on
        stderr), 130 after Ctrl-C; SIGTERM exits with 143.
    """
    sys.excepthook = _show_without_secrets
    if argv is None:
        _run_code_here()
    parser = _parser()
    options = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    if options.version:
        print(f"ganpipe {__version__}")
        return 0
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return _run(options.command, options.arguments)
    except GanpipeError as error:
        print(f"error: {redact(str(error))}", file=sys.stderr)
        return EXIT_UNAVAILABLE if isinstance(error, UnavailableError) else EXIT_MENDABLE
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        print(f"error: {redact(_unwritable(error))}", file=sys.stderr)
        return EXIT_MENDABLE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}


def _unwritable(error: OSError) -> str:
    """The error line for a path that cannot be read or written, which is no fault of the code."""
    place = "" if error.filename is None else f"{error.filename}: "
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room" if full else "give this user access, or choose another place"
    return f"{place}{error.strerror}; {remedy}, then the same command again"
