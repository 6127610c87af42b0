"""Does this checkout hold what a registered version was made from? Recorded digests against those here. No MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["same", "differs", "unknown"]
UNSET = "(not there)"


@dataclass(frozen=True)
class Finding:
    """The result of one comparison.

    Attributes:
        part: `package`, `code`, `settings`, `data`, `outputs` or `environment`.
        what: the key, path or package; empty if the part has a single value.
        registered, here: the two values; if the verdict is `unknown`, `here` is the reason.
    """

    part: str
    what: str
    verdict: Verdict
    registered: str
    here: str

    @property
    def text(self) -> str:
        """One line for people."""
        name = f"{self.part} {self.what}".strip()
        if self.verdict == "same":
            return f"same     {name}: {self.registered}"
        return f"{self.verdict:<8} {name}: registered {self.registered}, here {self.here}"


def compare(part: str, registered: Mapping[str, Any], here: Mapping[str, Any]) -> list[Finding]:
    """One finding for each key that differs; if none differs, a single finding that says how many are the same.

    Args:
        part: see `Finding`.
        registered, here: values by key; compared as text, because MLflow keeps them as text.
    """
    keys = sorted({*registered, *here})
    found = []
    for key in keys:
        was, now = str(registered.get(key, UNSET)), str(here.get(key, UNSET))
        if was != now:
            found.append(Finding(part, key, "differs", was, now))
    return found or [Finding(part, "", "same", f"{len(keys)} values", "")]


def compare_value(part: str, registered: str, here: str | None, why_not: str = "", what: str = "") -> Finding:
    """A finding about a single value; `unknown`, with the reason `why_not`, if `here` is None."""
    if here is None:
        return Finding(part, what, "unknown", registered, why_not)
    return Finding(part, what, "same" if registered == here else "differs", registered, here)


def verdict(findings: Sequence[Finding]) -> Verdict:
    """The verdict over all findings: `same` only if every finding is."""
    verdicts = {finding.verdict for finding in findings}
    return "differs" if "differs" in verdicts else "unknown" if "unknown" in verdicts else "same"
