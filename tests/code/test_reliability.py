"""The table of docs/reliability.md says what the fault tests saw, failures included."""

from __future__ import annotations

from pathlib import Path

import pytest
import reliability


def test_the_table_counts_what_was_tried_and_what_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, page = tmp_path / "seen" / "reliability.jsonl", tmp_path / "page.md"
    monkeypatch.setattr(reliability, "SEEN", seen)
    with reliability.fault("a kill") as trial:
        trial.struck()
        trial.recovered(lost="3 steps")

    def unlucky() -> None:
        with reliability.fault("a kill") as trial:
            trial.struck()
            trial.recovered()
            raise AssertionError("weights differ")

    with pytest.raises(AssertionError):
        unlucky()
    with reliability.fault("a cut") as trial:
        trial.struck()
    page.write_text(f"before\n{reliability.BEGIN}\nold\n{reliability.END}\nafter\n")

    reliability.write(page, seen)

    text = page.read_text()
    assert "| a kill | 2 | 1 | 3 steps | 0.0 |" in text
    assert "| a cut | 1 | 0 |  |  |" in text, "a fault that nobody recovered from did not survive"
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text


def test_recovery_needs_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reliability, "SEEN", tmp_path / "seen.jsonl")
    with pytest.raises(RuntimeError, match=r"recovered\(\) before struck\(\)"), reliability.fault("a kill") as trial:
        trial.recovered()
