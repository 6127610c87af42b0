"""What a file uses: found in its source, and told apart by what the code says, not by how it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganpipe.imports import closure, digest


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    files = {
        "__init__.py": "",
        "params.py": "from .rooms import chosen\nfrom . import bottom\n",
        "bottom.py": "import json\n",
        "start.py": "from .inner.first import one\nfrom . import params\n",
        "rooms/__init__.py": "",
        "rooms/chosen.py": "",
        "inner/__init__.py": "",
        "inner/first.py": (
            "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from .typed import T\n"
            "def one():\n    from .second import two\n    return two\n"
        ),
        "inner/second.py": "import numpy.linalg\nfrom .. import bottom\nfrom .first import one\n",
        "inner/typed.py": "",
        "inner/alone.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "package" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "package"


def test_imports_are_followed_through_functions_packages_and_circles(sources: Path) -> None:
    found = closure(["inner/first.py"], sources)
    assert found.files == ("__init__.py", "bottom.py", "inner/__init__.py", "inner/first.py", "inner/second.py")
    assert found.outside == ("__future__", "json", "numpy", "typing")


def test_imports_by_the_absolute_name_are_followed_and_told(sources: Path) -> None:
    (sources / "inner" / "alone.py").write_text("from package.rooms import chosen\nimport package.inner.typed\n")
    found = closure(["inner/alone.py"], sources)
    assert {"rooms/chosen.py", "inner/typed.py"} <= set(found.files)
    assert (found.by_name, found.outside) == (("inner/alone.py",), ())


def test_a_gathering_file_brings_only_the_modules_beside_it(sources: Path) -> None:
    assert "rooms/chosen.py" in closure(["start.py"], sources).files
    found = closure(["start.py"], sources, gathering="params.py").files
    assert {"params.py", "bottom.py", "inner/second.py"} <= set(found)
    assert not [name for name in found if name.startswith("rooms/")]
    assert "rooms/chosen.py" in closure(["start.py", "rooms/chosen.py"], sources, gathering="params.py").files


def test_a_file_that_is_missing_or_no_python_is_named(sources: Path) -> None:
    with pytest.raises(Exception, match=r"inner/nowhere\.py: no such file"):
        closure(["inner/nowhere.py"], sources)
    (sources / "inner" / "alone.py").write_text("x = 1\ny = = 2\n")
    with pytest.raises(Exception, match=r"alone\.py:2: not valid Python"):
        closure(["inner/alone.py"], sources)


BEFORE = '''"""Doc."""
class A:
    """Doc."""
    x: int = 3
    """Doc of x."""
    def f(self, a, b=2):
        return a + b  # because
'''


def digest_of(tmp_path: Path, text: str) -> str:
    path = tmp_path / f"{abs(hash(text))}.py"
    path.write_text(text)
    return digest(path)


@pytest.mark.parametrize(
    "after",
    [
        BEFORE.replace("# because", "# for another reason"),
        BEFORE.replace('"""Doc."""', '"""Another."""'),
        BEFORE.replace('    """Doc of x."""\n', ""),
        BEFORE.replace("a + b ", "(a\n            + b)"),
    ],
)
def test_comments_docstrings_and_layout_change_nothing(tmp_path: Path, after: str) -> None:
    assert after != BEFORE
    assert digest_of(tmp_path, after) == digest_of(tmp_path, BEFORE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("= 3", "= 4"), ("= 3", "= 3.0"), ("= 3", '= "3"'), ("b=2", "b=None"), ("a + b", "b + a"), ("x: int", "x: float"),
     ("return a + b", "return a, +b"), ("def f", "async def f")],
)  # fmt: skip
def test_whatever_the_code_says_counts(tmp_path: Path, old: str, new: str) -> None:
    assert digest_of(tmp_path, BEFORE.replace(old, new)) != digest_of(tmp_path, BEFORE)
