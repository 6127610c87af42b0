"""What compose file and manifests have in common: pinned images, secrets by name, commands that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from functools import cache

import click
from compose_file import INFRA, dotenv

PINNED = re.compile(r"^[a-z0-9./-]+(:(?!latest)[\w.-]*\d[\w.-]*|@sha256:[0-9a-f]{64})$")
_ALIASES = {
    "POSTGRES_PASSWORD": {"PGPASSWORD"},
    "PREFECT_AUTH": {"PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"},
}
_FOREIGN = {"weed", "mini", "postgres", "pg_isready", "wget", "git", "cd", "export", "if", "fi", "tini"}


def secrets() -> set[str]:
    """What infra/.env.example leaves empty, since everybody has to make their own."""
    return {name for name, value in dotenv(INFRA / ".env.example").items() if not value}


def secret_names() -> set[str]:
    """Every variable under which a process is given a secret."""
    return set.union(secrets(), *(_ALIASES.get(name, set()) for name in secrets()))


def check_command(command: Sequence[str], entrypoint: bool = False) -> None:
    """Fail unless every program that the command runs is known, and its subcommands and options are its own.

    Args:
        entrypoint: the words are an image's own command, of which nothing is known here.
    """
    words = list(command)
    if words[:2] == ["tini", "--"]:
        words = words[2:]
    if words and words[0] == "sh":
        for step in _steps(words[-1]):
            _check(step)
    elif not entrypoint:
        _check(words)


def _steps(script: str) -> list[list[str]]:
    """The words of each simple command of a shell script."""
    lexer = shlex.shlex(script.replace("\n", " ; "), posix=True, punctuation_chars="&;|")
    lexer.whitespace_split = True
    steps: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("&;|"):
            steps.append([])
        else:
            steps[-1].append(word)
    return [step for step in steps if step]


def _check(words: list[str]) -> None:
    while words and (words[0] in {"exec", "if", "!", "then"} or re.fullmatch(r"[A-Z_]+=.*", words[0])):
        words = words[1:]
    if words and words[0] == "sh":  # within a job's entrypoint
        check_command(words)
        return
    if not words or words[0] in _FOREIGN or words[0] == "[":
        return
    name, arguments = words[0], words[1:]
    assert name in {"ganpipe", "prefect", "mlflow", "ray", "dvc"}, words
    if name == "ganpipe":
        from ganpipe.cli import COMMANDS

        assert arguments[0] in COMMANDS, words
    elif name == "dvc":
        assert arguments[0] in {"repro", "push", "pull", "checkout"}, words
    elif name == "prefect":
        _check_prefect(arguments)
    else:
        _check_click(_group(name), arguments, words)


def _check_prefect(arguments: Sequence[str]) -> None:
    """Prefect's own parser takes the words, and nothing is run."""
    from prefect.cli._app import _app

    _, bound, _ = _app.meta.parse_args(
        list(arguments), exit_on_error=False, print_error=False
    )  # --no-prompt and the like
    _app.parse_args(list(bound.args), exit_on_error=False, print_error=False)


@cache
def _group(name: str) -> click.Command:
    """The command line of `name` as click knows it."""
    if name == "mlflow":
        from mlflow.cli import cli

        return cli  # type: ignore[no-any-return]
    if name == "ray":
        from ray.scripts.scripts import cli as ray_cli

        return ray_cli  # type: ignore[no-any-return]
    import typer
    from prefect.cli import app

    return typer.main.get_command(app)  # type: ignore[arg-type]


def _check_click(command: click.Command, arguments: Sequence[str], words: Sequence[str]) -> None:
    known: dict[str, click.Parameter] = {}
    rest = list(arguments)
    while rest:
        known |= {
            option: parameter for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        word = rest.pop(0)
        if word.startswith("-"):
            option, equals, _ = word.partition("=")
            assert option in known, f"{' '.join(words)}: no option {option}"
            if not equals and not getattr(known[option], "is_flag", False):
                rest.pop(0)
        elif isinstance(command, click.Group):
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"{' '.join(words)}: no command {word}"
            command = found
        else:
            assert any(isinstance(parameter, click.Argument) for parameter in command.params), (words, word)
    assert not isinstance(command, click.Group), f"{' '.join(words)}: no command"
