"""Secrets are neither shown nor kept: in texts, in settings, in what the command line prints."""

from __future__ import annotations

import ast
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ganpipe.errors import GanpipeError
from ganpipe.params import load_params
from ganpipe.redaction import expand_variables, redact, secret_in_url, secrets_in, without_password, without_user_info

ROOT = Path(__file__).resolve().parents[2]
MARK = "marker-of-a-secret"


@pytest.mark.parametrize(
    "text",
    [
        f"API request to https://me:{MARK}@host:5000/api/2.0 failed",
        f"fatal: could not read from https://{MARK}@github.example/x.git",
        f"https://b.example/x.tar?X-Amz-Credential={MARK}&X-Amz-Date=1&X-Amz-Signature={MARK}",
        f"https://b.example/x?sv=1&sig={MARK}'",
        f"GET /x?access_token={MARK} HTTP/1.1 https://b.example/y?X-Goog-Signature={MARK}",
        f"postgresql://mlflow:{MARK}@db/mlflow",
        f"the key {MARK} is wrong",
    ],
)
def test_a_text_loses_its_secrets_and_nothing_else(text: str) -> None:
    shown = redact(text, {"AWS_SECRET_ACCESS_KEY": MARK})
    assert MARK not in shown
    assert "***" in shown
    for word in ("API request to", "failed", "host:5000/api/2.0", "X-Amz-Date=1", "is wrong", "b.example"):
        assert (word in text) == (word in shown)


@pytest.mark.parametrize(
    "text",
    ["sqlite:///mlflow.db", "https://host/x?page=2", "write to me@host.example", "a: b", "s3://bucket/{00..11}.tar"],
)
def test_a_text_without_secrets_stays(text: str) -> None:
    environment = {"RAY_AUTH_MODE": "token", "SSH_AUTH_SOCK": "/run/x", "TOKENIZERS_PARALLELISM": "false", "SECRET": ""}
    assert redact(text, environment) == text
    assert secret_in_url(text) is None
    assert not secrets_in(environment)


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "PREFECT_API_KEY",
        "HF_TOKEN",
        "PREFECT_API_AUTH_STRING",
        "GITHUB_TOKEN",
        "SLACK_WEBHOOK_URL",
        "AZURE_STORAGE_CONNECTION_STRING",
        "GOOGLE_API_KEY",
    ],
)
def test_what_the_environment_calls_a_secret_is_one(name: str) -> None:
    assert secrets_in({name: MARK}) == {MARK}


def test_passwords_in_urls_of_the_environment_are_found_wherever_they_turn_up() -> None:
    environment = {"MLFLOW_TRACKING_URI": f"http://me:{MARK}%21@host"}
    assert redact(f"{MARK}! and {MARK}%21", environment) == "*** and ***"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("cluster", "storage_path", f"s3://key:{MARK}@bucket/x"),
        ("sources", "webdataset.shards.1", f"https://h.example/x.tar?X-Amz-Signature={MARK}"),
        ("sources", "mnist.mirrors.0", f"https://me:{MARK}@h.example/mnist"),
    ],
)
def test_settings_with_a_secret_are_refused_without_showing_it(
    tmp_path: Path, section: str, key: str, value: str
) -> None:
    import yaml

    *parents, last = key.split(".")
    below: object = {last: value} if not last.isdigit() else ["https://h.example/y.tar"] * int(last) + [value]
    for name in reversed(parents):
        below = {name: below}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({section: below}))
    with pytest.raises(GanpipeError, match=rf"{section}\.{key}: the URL holds a (password|signature)") as caught:
        load_params(tmp_path / "params.yaml")
    assert MARK not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown", "plain"),
    [
        ("https://me:secret@host:5000/x", "https://***@host:5000/x", "https://host:5000/x"),
        ("https://host/x", "https://host/x", "https://host/x"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str, plain: str) -> None:
    assert (without_password(url), without_user_info(url)) == (shown, plain)


def test_settings_name_a_variable_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://$USER_1:${PASSWORD_1}@h.example/x.tar?token=$TOKEN_1"
    (tmp_path / "params.yaml").write_text(f"sources: {{webdataset: {{shards: ['{url}']}}}}")
    assert load_params(tmp_path / "params.yaml").sources["webdataset"]["shards"] == [url]
    monkeypatch.setenv("USER_1", "me")
    monkeypatch.setenv("PASSWORD_1", "p")
    with pytest.raises(GanpipeError, match=r"key: it names \$TOKEN_1, which is not set"):
        expand_variables(url, "key")
    monkeypatch.setenv("TOKEN_1", "t")
    assert expand_variables(url, "key") == "https://me:p@h.example/x.tar?token=t"


def test_an_error_that_nobody_foresaw_is_printed_without_secrets(tmp_path: Path) -> None:
    code = (
        "import sys; from ganpipe import cli; cli._run = lambda *_: 1 / 0 if not sys.argv[1:] else exec(sys.argv[1])\n"
        "cli.main(['check'])"
    )
    failing = f"raise OSError('cannot reach https://me:{MARK}@host/x with {MARK}')"
    done = subprocess.run(
        [sys.executable, "-c", code, failing], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "OSError: cannot reach https://***@host/x" in done.stderr
    assert f"me:{MARK}" not in done.stderr


def test_the_redaction_is_where_text_leaves_for_logs_and_consoles() -> None:
    """A new child process whose output is logged, or a new console, is to use it, too."""
    for name in ("ganpipe/cli.py", "pipelines/run_stage.py", "pipelines/project.py", "pipelines/workspace.py",
                 "pipelines/__main__.py", "ganpipe/tracking/connection.py", "ganpipe/tracking/run_log.py"):  # fmt: skip
        calls = [node for node in ast.walk(ast.parse((ROOT / name).read_text())) if isinstance(node, ast.Call)]
        assert any(ast.unparse(call.func) == "redact" for call in calls), name
    for path in (*(ROOT / "pipelines").glob("*.py"), *(ROOT / "ganpipe").rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert "{done.stderr" not in line, f"{path.relative_to(ROOT)}:{number} shows a child's output as it is"


def test_a_request_sends_the_password_as_a_header_to_its_host_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from ganpipe.data.sources import foreign_files

    seen: list[urllib.request.Request] = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout: seen.append(request))
    monkeypatch.setenv("P", "s3cret!")
    foreign_files._request(foreign_files.ForeignFile("https://me:$P@h.example/x.tar", "key"), "GET")
    assert seen[0].full_url == "https://h.example/x.tar"
    assert seen[0].unredirected_hdrs["Authorization"] == "Basic bWU6czNjcmV0IQ=="
