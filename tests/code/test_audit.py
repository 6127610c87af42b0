"""`make audit` with pip-audit itself; a server on loopback stands for osv.dev, which cannot be had everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FINDING = {
    "id": "GHSA-aaaa-bbbb-cccc",
    "aliases": ["CVE-2026-0001"],
    "details": "Whoever sends a long header stops the server.",
    "affected": [
        {
            "package": {"name": "leftpad", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}


class Advisories(BaseHTTPRequestHandler):
    """Knows one package with a hole."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = asked["package"]["name"] == "leftpad" and asked["version"] == "1.0"
        body = json.dumps({"vulns": [FINDING]} if known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        server.shutdown()
        thread.join()


def audit(folder: Path, pins: str, accepted: str, *flags: str) -> subprocess.CompletedProcess[str]:
    (folder / "requirements.lock").write_text(pins)
    (folder / "audit.yaml").write_text(accepted)
    command = [sys.executable, str(ROOT / "tests" / "audit.py"), "--requirements", str(folder / "requirements.lock")]
    command += ["--accepted", str(folder / "audit.yaml"), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def entry(until: date, package: str = "leftpad", name: str = "CVE-2026-0001") -> str:
    return f"- {{id: {name}, package: {package}, reason: Nothing here listens for headers., until: {until}}}\n"


TODAY = date.today()
SOON, PAST, LATE = TODAY + timedelta(30), TODAY - timedelta(1), TODAY + timedelta(400)


@pytest.mark.parametrize(
    ("pins", "accepted", "code", "says"),
    [
        ("leftpad==1.0\nother==3\n", "[]", 1, "leftpad 1.0: CVE-2026-0001 (fixed in 2.0): Whoever sends"),
        ("leftpad==2.0\nother==3\n", "[]", 0, "2 packages checked, 0 findings"),
        ("leftpad==1.0\n", entry(SOON), 0, f"accepted until {SOON}: Nothing here listens"),
        ("leftpad==1.0\n", entry(PAST), 1, f"accepted until {PAST}, which is over"),
        ("leftpad==1.0\n", entry(SOON, package="other"), 1, "fixed in 2.0"),
        ("leftpad==2.0\n", entry(SOON), 0, "CVE-2026-0001 of leftpad is no longer found: remove it"),
        ("leftpad==1.0\n", entry(LATE), 2, "more than 366 days away"),
        ("leftpad==1.0\n", "- {id: CVE-2026-0001, package: leftpad}", 2, "expected id, package, reason and until"),
        ("leftpad==1.0\n", "- {id: x, package: leftpad, reason: why, until: 2027-01-01}", 2, "a reason in words"),
    ],
    ids=["found", "fixed", "accepted", "over", "another's", "gone", "too long", "no reason", "no words"],
)  # fmt: skip
def test_findings(tmp_path: Path, url: str, pins: str, accepted: str, code: int, says: str) -> None:
    done = audit(tmp_path, pins, accepted, "--url", url)
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stdout + done.stderr


@pytest.mark.parametrize(("flags", "code"), [((), 0), (("--strict",), 1)])
def test_a_database_that_does_not_answer_is_no_all_clear(tmp_path: Path, flags: tuple[str, ...], code: int) -> None:
    done = audit(tmp_path, "leftpad==1.0\n", "[]", "--url", "http://127.0.0.1:9/v1/query", *flags)
    assert done.returncode == code
    assert "NOT CHECKED" in done.stderr
    assert "0 findings" not in done.stdout


def test_what_this_project_accepts_is_well_formed() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from audit import accepted_in

    assert isinstance(accepted_in(ROOT / "audit.yaml", TODAY), list)


def test_lint_audits() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "lint: $(INSTALLED) audit" in makefile
    assert "tests/audit.py" in makefile
