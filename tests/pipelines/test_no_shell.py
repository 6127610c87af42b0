"""No value of params.yaml, no flow parameter and no file's content gets to a shell, or to a program as an option."""

from __future__ import annotations

import ast
import contextlib
import copy
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from projects import STAGES, Project, make_project

from ganpipe.errors import GanpipeError
from ganpipe.params import every_setting, load_params
from pipelines import workspace
from pipelines.graph import read_graph

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for room in ("ganpipe", "pipelines") for path in (ROOT / room).rglob("*.py"))
TOUCH = "touched-by-an-attack"
HOSTILE = (
    f"$(touch {TOUCH})",
    f"`touch {TOUCH}`",
    f"x; touch {TOUCH} #",
    f"x' \" && touch {TOUCH} || '",
    f"x\ntouch {TOUCH}\n",
    f"--config=touch {TOUCH}",
    f"| touch {TOUCH}",
    "../../../etc/passwd",
)  # fmt: skip


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_no_code_starts_a_shell() -> None:
    shells = re.compile(
        r"(os\.(system|popen|exec(?!ve\b)\w*|spawn\w*)|subprocess\.get(status)?output|asyncio\.create_subprocess_shell"
        r"|pty\.spawn|commands\.\w+|ShellOperation|shell_run_command|eval|exec)"
    )
    started = 0
    for path in SOURCES:
        for where, call in calls(path):
            name = ast.unparse(call.func)
            keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert not shells.fullmatch(name), where
            assert keywords.get("shell", "False") == "False", where
            if name in {"subprocess.run", "subprocess.Popen", "subprocess.check_output", "subprocess.check_call"}:
                started += 1
                # A list, made here or named: never one text that somebody would have to split.
                assert not isinstance(call.args[0], ast.Constant | ast.JoinedStr | ast.BinOp), where
    assert started >= 8


def test_the_commands_of_dvc_yaml_hold_no_settings() -> None:
    """DVC gives them to a shell."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        assert stage["cmd"] == f"ganpipe {name}"
    prefect = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    assert "run_shell_script" not in prefect


def texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Dotted places of all settings that take a text."""
    for name, field in type(value).model_fields.items():
        one = getattr(value, name)
        place = (*path, field.alias or name)
        if hasattr(type(one), "model_fields"):
            yield from texts(one, place)
        elif "str" in str(field.annotation):
            yield place


PLACES = list(texts(every_setting()()))


def test_there_are_texts_to_try() -> None:
    assert ("cluster", "storage_path") in PLACES
    assert ("sources", "folder", "path") in PLACES
    assert len(PLACES) > 20


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("hostile") / "project")


@pytest.fixture
def params(project: Project) -> Iterator[dict[str, Any]]:
    """params.yaml's values; what a test writes there is taken back."""
    path = project.root / "params.yaml"
    before = path.read_text()
    yield yaml.safe_load(before)
    path.write_text(before)


def written(project: Project, values: dict[str, Any], place: tuple[str, ...], value: str) -> None:
    *sections, key = place
    for section in sections:
        values = values.setdefault(section, {})
    values[key] = [value] if isinstance(values.get(key), list) else value


def nothing_was_touched(project: Project) -> None:
    found = [path for path in project.root.parent.rglob("*") if path.name == TOUCH]
    assert not found


def test_a_hostile_text_in_a_setting_starts_nothing(
    project: Project, params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    path = tmp_path / "params.yaml"
    for place, value in zip(PLACES, itertools.cycle(HOSTILE), strict=False):
        values = copy.deepcopy(params)
        written(project, values, place, value)
        path.write_text(yaml.safe_dump(values))
        with contextlib.suppress(GanpipeError):
            load_params(path)
    nothing_was_touched(project)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_text_in_all_settings_starts_nothing(project: Project, params: dict[str, Any], value: str) -> None:
    """DVC checks nothing: it resolves every template with what stands there."""
    path = project.root / "params.yaml"
    for place in PLACES:
        written(project, params, place, value)
    path.write_text(yaml.safe_dump(params))
    with contextlib.suppress(GanpipeError):
        assert {stage.name for stage in read_graph(project.root)} == set(STAGES)
    nothing_was_touched(project)


@pytest.mark.parametrize("place", [("sources", "folder", "path"), ("train", "gan"), ("cluster", "storage_path")])
def test_a_hostile_text_starts_nothing_in_dvcs_own_process(
    project: Project, params: dict[str, Any], place: tuple[str, ...]
) -> None:
    written(project, params, place, f"$(touch {TOUCH}); touch {TOUCH}")
    (project.root / "params.yaml").write_text(yaml.safe_dump(params))
    if place[0] == "cluster":  # a folder of that name is one that may be used
        project.dvc("status", "train")
    else:
        said = project.run("dvc", "repro", "ingest" if place[0] == "sources" else "train", "--single-item", code=255)
        assert "ERROR" in said
    nothing_was_touched(project)


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_flow_parameters(project: Project, params: dict[str, Any], value: str) -> None:
    """A revision, a run's name, an override: none is an option of git or a path out of the workspaces."""
    with pytest.raises(GanpipeError, match="revision"):
        workspace.resolve(project.root, value)
    name = workspace.experiment_name(value, "0123456789", [])
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name)
    space = workspace.Workspace(project.root, name, "")
    assert space.root.parent == project.root / workspace.WORKSPACES
    here = workspace.Workspace(project.root.parent.parent, "x", "")
    here.root.mkdir(parents=True, exist_ok=True)
    (here.root / "params.yaml").write_text("train: {gan: dcgan}\n")
    workspace.override(here, {"train.gan": value})
    assert yaml.safe_load((here.root / "params.yaml").read_text()) == {"train": {"gan": value}}
    nothing_was_touched(project)
