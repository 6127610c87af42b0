"""docs/adding-a-gan.md, followed to the letter in a copy of the project."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import page_parts
import pytest

ROOT = Path(__file__).parents[2]


def blocks() -> list[tuple[str, dict[str, str], str]]:
    """The page's code blocks."""
    return page_parts.blocks("adding-a-gan.md")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the page's files in it."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("ganpipe", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "pyproject.toml", "dvc.yaml", "params.schema.json", "README.md"):
        shutil.copyfile(ROOT / name, folder / name)
    page_parts.apply("adding-a-gan.md", folder)
    git = ["git", "-C", str(folder), "-c", "user.name=A person", "-c", "user.email=person@example.org"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "A GAN of my own"]):
        subprocess.run([*git, *command], check=True)
    return folder


def run(folder: Path, *arguments: str) -> str:
    """The output of a command in `folder`, which runs the copy and not the project itself."""
    script = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import ganpipe; "
        f"assert ganpipe.__file__.startswith({str(folder)!r}); "
    )
    if arguments[0] == "ganpipe":
        script += f"from ganpipe.cli import main; raise SystemExit(main({list(arguments[1:])!r}))"
    else:
        script += f"import pytest; raise SystemExit(pytest.main({list(arguments[1:])!r}))"
    result = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def commands() -> list[str]:
    """The lines of the page's shell block."""
    return [line for language, _, text in blocks() if language == "sh" for line in text.splitlines() if line]


def test_the_page_tells_the_whole_way() -> None:
    files = [attributes["file"] for _, attributes, _ in blocks() if "file" in attributes]
    assert files == [
        "ganpipe/losses/hinge.py",
        "ganpipe/gans/hinge_gan.py",
        "params.yaml",
        "ganpipe/gans/hole_gan.py",
        "params.yaml",
    ]
    assert commands() == [
        "ganpipe schema",
        "ganpipe check",
        "pytest tests/gans -k hinge_gan",
        "dvc exp run -S train.gan=hinge_gan",
        "pytest tests/gans -k hole_gan",
        "dvc exp run -S train.gan=hole_gan",
        "ganpipe translate --input pictures --output filled",
    ]


def test_schema_and_check_know_the_new_gan(copy: Path) -> None:
    run(copy, "ganpipe", "schema")
    schema = (copy / "params.schema.json").read_text()
    assert "HingeGanSettings" in schema
    assert "HoleGanSettings" in schema
    params = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(params.replace("gan: dcgan", "gan: hinge_gan"))
    assert "ready" in run(copy, "ganpipe", "check")


def test_the_projects_own_tests_find_them_and_pass(copy: Path) -> None:
    output = run(copy, "pytest", "-v", "-p", "no:cacheprovider", "tests/gans", "-k", "hinge_gan or hole_gan")
    for name in ("hinge_gan", "hole_gan"):
        passed = re.findall(rf"\[.*\b{name}\b.*\] PASSED", output)
        assert len(passed) >= 9, f"the tests of every GAN did not find the new one:\n{output}"


def test_an_invented_mistake_is_found(copy: Path) -> None:
    """The tests that the page promises do fail for a GAN that is wrong."""
    path = copy / "ganpipe" / "gans" / "hinge_gan.py"
    text = path.read_text()
    try:
        path.write_text(
            text.replace(
                "generator_loss = staticmethod(hinge_generator)",
                "generator_loss = staticmethod(lambda x: -hinge_generator(x))",
            )
        )
        with pytest.raises(AssertionError, match="test_it_learns"):
            run(copy, "pytest", "-q", "-p", "no:cacheprovider", "tests/gans", "-k", "hinge_gan and learns")
    finally:
        path.write_text(text)
