"""`make audit`: known vulnerabilities of what requirements.lock pins, but for those that audit.yaml accepts.

    python tests/audit.py            where the database of advisories cannot be reached, it says so and ends well
    python tests/audit.py --strict   there it is an error, too: for a machine that has a way out

The advisories are those of osv.dev, which pip-audit asks for each package. See docs/decisions/0019.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
LONGEST_DAYS = 366
"""No finding is accepted for longer than this at a time."""


@dataclass(frozen=True)
class Accepted:
    """A finding that is known and lived with."""

    id: str
    package: str
    reason: str
    until: date


class NotAsked(Exception):
    """The database did not answer, and why."""


def accepted_in(path: Path, today: date) -> list[Accepted]:
    """The entries of audit.yaml.

    Raises:
        ValueError: an entry lacks something, or is to stand for more than a year.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    found = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or set(entry) != {"id", "package", "reason", "until"}:
            raise ValueError(f"{path.name}: entry {number}: expected id, package, reason and until; got {entry!r}")
        one = Accepted(str(entry["id"]), str(entry["package"]), str(entry["reason"]).strip(), entry["until"])
        if not isinstance(one.until, date) or len(one.reason) < 20:
            raise ValueError(f"{path.name}: {one.id}: expected a reason in words, and a date (2027-01-31) for until")
        if (one.until - today).days > LONGEST_DAYS:
            raise ValueError(f"{path.name}: {one.id}: until {one.until} is more than {LONGEST_DAYS} days away")
        found.append(one)
    return found


def ask(requirements: Path, url: str | None) -> list[dict[str, Any]]:
    """What pip-audit found out on each package.

    Raises:
        NotAsked: it could not ask about all of them.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"]
    command += ["--vulnerability-service", "osv", "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
    command += ["--osv-url", url] if url else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise NotAsked(lines[-1][:300]) from None
    # Behind a mirror of PyPI each package is "not found", which pip-audit itself takes for "nothing known".
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped or not packages:
        raise NotAsked(f"nothing is said of {len(skipped)} of {len(packages)} packages ({', '.join(skipped[:5])}, ...)")
    return packages


def judge(packages: list[dict[str, Any]], accepted: list[Accepted], today: date) -> tuple[list[str], list[str]]:
    """Findings that are not accepted, and what else there is to say; one line each."""
    faults, remarks, met = [], [], set()
    for package in packages:
        for finding in package["vulns"]:
            ids = {finding["id"], *finding.get("aliases", ())}
            entry = next((one for one in accepted if one.id in ids and one.package == package["name"]), None)
            what = f"{package['name']} {package['version']}: {finding['id']}"
            if entry is None:
                fixed = ", ".join(finding.get("fix_versions", ())) or "no version yet"
                faults.append(f"{what} (fixed in {fixed}): {' '.join(finding.get('description', '').split())[:160]}")
                continue
            met.add(entry)
            if entry.until < today:
                faults.append(f"{what}: accepted until {entry.until}, which is over: {entry.reason}")
            else:
                remarks.append(f"{what}: accepted until {entry.until}: {entry.reason}")
    remarks += [
        f"audit.yaml: {one.id} of {one.package} is no longer found: remove it" for one in accepted if one not in met
    ]
    return faults, remarks


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--strict", action="store_true", help="a database that does not answer is an error")
    parser.add_argument("--requirements", type=Path, default=ROOT / "requirements.lock")
    parser.add_argument("--accepted", type=Path, default=ROOT / "audit.yaml")
    parser.add_argument("--url", help="of the database; default: that of osv.dev")
    options = parser.parse_args(argv)
    today = date.today()
    try:
        accepted = accepted_in(options.accepted, today)
        packages = ask(options.requirements, options.url)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NotAsked as error:
        print(f"audit: NOT CHECKED: the advisories cannot be had here ({error})", file=sys.stderr)
        return 1 if options.strict else 0
    faults, remarks = judge(packages, accepted, today)
    for line in remarks:
        print(f"audit: {line}")
    for line in faults:
        print(f"error: {line}", file=sys.stderr)
    print(f"audit: {len(packages)} packages checked, {len(faults)} findings to mend or to accept in audit.yaml")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
