"""The `ganpipe` command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ganpipe import cli
from ganpipe.errors import GanpipeError

HEAVY = ("torch", "ray", "mlflow", "dvc", "prefect", "matplotlib", "numpy", "scipy", "optuna", "webdataset")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom ganpipe import cli\n"
        "assert cli.main([]) == 0\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "LOADED []"
    assert all(f"  {name} " in result.stdout for name in cli.COMMANDS)


def test_every_command_has_a_main():
    from importlib import import_module

    for module, _ in cli.COMMANDS.values():
        assert callable(import_module(f"ganpipe.{module}").main)


@pytest.mark.parametrize("command", [*cli.COMMANDS, "ingest --watch"])
def test_every_command_says_more_with_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    usage = f"usage: ganpipe {command} [-h]"
    assert said.startswith(usage)
    assert len(said.partition("options:")[0]) > len(usage) + 20, "it does not say what it does"
    if cli.COMMANDS[command.split()[0]][1].startswith("stage: ") and " " not in command:
        assert f"`dvc repro {command}` runs it with all that it needs" in said


def test_unknown_command_gets_the_nearest(capsys):
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == "error: no command 'trian'; did you mean 'train'?\n"


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (GanpipeError("data.limit: got -1"), 2, "error: data.limit: got -1\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_are_one_line_and_a_code(monkeypatch, capsys, raised, code, text):
    def fail(argv):
        raise raised

    monkeypatch.setattr("ganpipe.commands.services.main", fail)
    assert cli.main(["services"]) == code
    assert capsys.readouterr().err == text


def test_arguments_reach_the_command(monkeypatch):
    seen = []
    monkeypatch.setattr("ganpipe.commands.services.main", lambda argv: seen.append(argv) or 0)
    assert cli.main(["down", "ray", "--flag"]) == 0
    assert seen == [["down", "ray", "--flag"]]


def test_outside_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["services"]) == 2
    assert "is in no DVC repository" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".ganpipe").mkdir()
    (tmp_path / ".ganpipe" / "services").symlink_to("/sys/kernel")  # where root may not write, either
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert cli.main(["up", "prefect"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: /sys/kernel/prefect.lock: ")
    assert line.endswith("give this user access, or choose another place, then the same command again")


def test_a_full_disk_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "params.schema.json").symlink_to("/dev/full")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["schema"]) == 2
    assert capsys.readouterr().err == "error: params.schema.json: cannot be written: No space left on device\n"
