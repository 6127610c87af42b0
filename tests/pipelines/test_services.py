"""The background services, for real: each is started, found again, answers, and is gone after `stop`."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from ganpipe import environment, processes, services
from ganpipe.cli import main
from ganpipe.errors import GanpipeError, UnavailableError
from ganpipe.service_kinds import KINDS, Kind, Launch, free_port
from ganpipe.training import cluster


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for kind in KINDS.values():
        monkeypatch.delenv(kind.variable, raising=False)
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def _get(url: str, token: str | None = None) -> str:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as response:
        return str(response.read().decode())


def _listening(pid: int) -> set[str]:
    return {
        connection.laddr.ip
        for process in processes.tree(pid)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.mark.slow
def test_all_three_start_answer_are_found_again_and_stop(root):
    try:
        started = services.ensure_all(KINDS, root)
        assert services.ensure_all(KINDS, root) == started
        assert services.status(root) == started

        assert _get(f"{started['prefect'].address}/health") == "true"
        assert "<html" in _get(started["mlflow"].url).lower()
        # Ray runs any code that it is sent: only from who has this user's token.
        token = (Path.home() / ".ray" / "auth_token").read_text().strip()
        assert json.loads(_get(f"{started['ray'].url}/api/version", token))["ray_version"]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            _get(f"{started['ray'].url}/api/version")
        assert services.ray_address(root) == started["ray"].address

        # In another process, as a stage would: it computes on that head and does not start one of its own.
        code = (
            "import ray\nray.init(log_to_driver=False)\n"
            "print(ray.get(ray.remote(lambda: 6 * 7).remote()), ray.get_runtime_context().gcs_address)"
        )
        variables = {**services.client_environment(started, root), **environment.LOOPBACK_RAY, "HOME": str(Path.home())}
        result = subprocess.run(
            [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True, timeout=120
        )
        assert result.stdout.split() == ["42", started["ray"].address]

        for service in started.values():
            assert service.pid is not None
            hosts = {host.removeprefix("::ffff:") for host in _listening(service.pid)}
            assert hosts == {"127.0.0.1"}, f"{service.name} listens on {hosts}"
        members = [process for service in started.values() for process in processes.tree(service.pid or 0)]
        folder = started["ray"].folder
        assert Path(folder).is_dir()
    finally:
        stopped = services.stop(root)
    assert stopped == ["prefect", "ray", "mlflow"]
    assert not [process for process in members if process.is_running() and processes.is_alive(process.pid)]
    assert not Path(folder).exists()
    assert set(services.status(root).values()) == {None}
    assert services.stop(root) == []


WITH_CHILD = """
import http.server, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


def test_a_service_that_was_killed_starts_again_where_its_users_look_for_it(root, monkeypatch):
    """Also where the port that it prefers is taken; MLflow itself is a slow test."""

    def launch(_: Path, last_port: int | None) -> Launch:
        port = free_port(last_port or taken.getsockname()[1])
        url = f"http://127.0.0.1:{port}"
        return Launch([sys.executable, "-c", WITH_CHILD, str(port)], {}, url, url, lambda: url)

    monkeypatch.setitem(KINDS, "mlflow", Kind("MLFLOW_TRACKING_URI", launch, lambda url, _: url, grace_seconds=0.2))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        try:
            first = services.ensure("mlflow", root)
            assert not first.url.endswith(f":{taken.getsockname()[1]}")
            leader, *children = processes.tree(first.pid or 0)
            leader.kill()
            leader.wait(timeout=10)
            assert services.running("mlflow", root) is None
            second = services.ensure("mlflow", root)
            assert second.pid != first.pid
            assert second.url == first.url
            assert children
            assert not [child for child in children if child.is_running() and processes.is_alive(child.pid)]
        finally:
            assert services.stop(root) == ["mlflow"]


@pytest.mark.slow
def test_mlflow_starts_again_after_a_kill_and_a_taken_port_is_no_hindrance(root):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # someone else has it: as good
            taken.bind(("127.0.0.1", 5000))
            taken.listen()
        try:
            first = services.ensure("mlflow", root)
            assert not first.url.endswith(":5000")
            assert (root / "mlflow.db").exists()
            leader, *children = processes.tree(first.pid or 0)
            leader.kill()
            leader.wait(timeout=10)
            assert services.running("mlflow", root) is None
            second = services.ensure("mlflow", root)
            assert second.pid != first.pid
            assert second.url == first.url  # where its users look for it
            # What the dead one left behind is gone, too.
            assert children
            assert not [child for child in children if child.is_running() and processes.is_alive(child.pid)]
            assert services.is_healthy(second)
        finally:
            assert services.stop(root) == ["mlflow"]


def test_a_service_named_in_the_environment_is_used_and_not_started(root, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "cluster.example:6379")
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    assert services.ensure("ray", root).address == "cluster.example:6379"
    assert services.ray_address(root) == "cluster.example:6379"
    assert services.ensure("prefect", root).url == "https://prefect.example"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:password@mlflow.example/x")
    tracking = services.ensure("mlflow", root)
    assert tracking.address == "https://me:password@mlflow.example/x"
    assert tracking.url == "https://mlflow.example/x", "what is shown holds no password"
    assert services.stop(root) == []
    assert not (root / ".ganpipe").exists()


def test_a_service_that_dies_shows_the_end_of_its_log(root, monkeypatch):
    def launch(*_: object) -> Launch:
        code = "import sys; print('loading'); sys.exit('database is locked')"
        return Launch([sys.executable, "-c", code], {}, "http://127.0.0.1:9", "http://127.0.0.1:9/", lambda: None)

    monkeypatch.setitem(KINDS, "mlflow", Kind("MLFLOW_TRACKING_URI", launch, lambda *_: ""))
    with pytest.raises(GanpipeError, match=r"(?s)mlflow ended with exit code 1 while starting.*database is locked"):
        services.ensure("mlflow", root)
    assert services.running("mlflow", root) is None


def test_a_service_that_never_answers_is_ended(root, monkeypatch):
    pids = root / "pid.txt"

    def launch(*_: object) -> Launch:
        code = f"import os, pathlib, time; pathlib.Path({str(pids)!r}).write_text(str(os.getpid())); time.sleep(300)"
        return Launch([sys.executable, "-c", code], {}, "http://127.0.0.1:9", "http://127.0.0.1:9/", lambda: None)

    monkeypatch.setitem(KINDS, "ray", Kind("RAY_ADDRESS", launch, lambda *_: ""))
    with pytest.raises(GanpipeError, match="ray did not answer within 2 s"):
        services.ensure("ray", root, timeout_seconds=2)
    assert not processes.is_alive(int(pids.read_text()))


def test_a_record_of_a_process_whose_number_is_now_anothers_is_not_believed(root):
    folder = root / services.STATE
    folder.mkdir(parents=True)
    me = psutil.Process()
    other = services.Running("ray", "http://x", "127.0.0.1:1", pid=me.pid, started=me.create_time() - 1000)
    (folder / "ray.json").write_text(json.dumps(asdict(other)))
    assert services.ray_address(root) is None
    assert services.stop(root, ["ray"]) == []
    (folder / "ray.json").write_text('{"pid": ')
    assert services.ray_address(root) is None


def test_defaults_leave_the_callers_choices_and_a_remote_cluster_alone():
    assert environment.defaults({})["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    remote = environment.defaults({"RAY_ADDRESS": "ray://10.0.0.5:10001", "DO_NOT_TRACK": "0"})
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in remote
    assert "DO_NOT_TRACK" not in remote
    assert remote["RAY_USAGE_STATS_ENABLED"] == "0"
    assert remote["RAY_worker_niceness"] == "0"
    assert "RAY_worker_niceness" not in environment.defaults({"RAY_worker_niceness": "15"})


def test_loopback_is_added_to_what_a_user_has_in_no_proxy():
    loopback = "localhost,127.0.0.1,127.0.0.0/8,::1"
    proxy = {"HTTP_PROXY": "http://proxy.example:3128"}
    assert environment.loopback_past_proxies({}) == {}
    assert environment.loopback_past_proxies({"no_proxy": "example.org", "http_proxy": ""}) == {}
    assert environment.loopback_past_proxies(proxy) == {"no_proxy": loopback, "NO_PROXY": loopback}
    both = {"no_proxy": f"example.org,{loopback}", "NO_PROXY": f"example.org,{loopback}"}
    assert environment.loopback_past_proxies(proxy | {"NO_PROXY": "example.org"}) == both
    assert environment.loopback_past_proxies(proxy | both) == both
    kept = environment.loopback_past_proxies(proxy | {"no_proxy": "a.example, localhost", "NO_PROXY": "b.example"})
    assert kept["no_proxy"] == "a.example,localhost,127.0.0.1,127.0.0.0/8,::1"
    assert kept["NO_PROXY"] == f"b.example,{loopback}"
    assert environment.loopback_past_proxies(proxy | {"no_proxy": "*"}) == {}


ASK = """
import asyncio, os, sys, urllib.request
from ganpipe import environment
environment.apply_defaults()
import aiohttp, boto3, httpx, requests
async def ask():
    async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as response:
        return response.status
for url in sys.argv[1:]:
    store = boto3.client("s3", endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x", region_name="x")
    bucket = store.head_bucket(Bucket="b")["ResponseMetadata"]["HTTPStatusCode"]
    statuses = [httpx.get(url).status_code, requests.get(url).status_code, asyncio.run(ask()), bucket]
    assert statuses + [urllib.request.urlopen(url).status] == [200] * 5, statuses
"""


@pytest.mark.parametrize("spelling", [str.lower, str.upper])
def test_no_client_goes_through_a_proxy_to_loopback(anything, spelling):
    """Prefect's (httpx), MLflow's and Ray's (requests, aiohttp), the stores' (botocore), and Python's own."""
    proxies = {spelling(name): "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy")}
    variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    urls = [f"http://{host}:{anything}" for host in ("127.0.0.1", "localhost")]
    command = [sys.executable, "-c", ASK, *urls]
    subprocess.run(command, env=variables | proxies, check=True, timeout=120)
    alone = [sys.executable, "-c", "import sys, httpx; httpx.get(sys.argv[1])", urls[0]]
    through = subprocess.run(alone, env=variables | proxies, capture_output=True, text=True, timeout=120, check=False)
    assert "ConnectError" in through.stderr, "without what apply_defaults does it goes through the proxy"


def test_a_proxy_that_prefects_client_cannot_use_is_said_before_the_flow_begins(anything):
    code = (
        "from pipelines.__main__ import _require_prefect, services; "
        "_require_prefect(services.named_in_environment('prefect'))"
    )
    variables = os.environ | {"PREFECT_API_URL": f"http://127.0.0.1:{anything}/api", "all_proxy": "sox://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    said = done.stderr.splitlines()[-1]
    assert (
        f"Prefect's client cannot use the server at http://127.0.0.1:{anything}: Unknown scheme for proxy URL" in said
    )
    assert "; it heeds NO_PROXY, all_proxy, no_proxy" in said


DYING = """
import http.server, sys, threading
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        threading.Timer(0.2, server.shutdown).start()
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy)
server.serve_forever()
sys.exit("no room in /dev/shm")
"""


@pytest.mark.slow
def test_a_ray_that_dies_after_its_health_check(root, monkeypatch, capsys):
    """Whoever cannot reach it says so with the end of its log; who needs it starts it anew, and says why."""

    def launch(*_: object) -> Launch:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        return Launch([sys.executable, "-c", DYING, str(port)], {}, url, url, lambda: f"127.0.0.1:{port}")

    monkeypatch.setitem(KINDS, "ray", Kind("RAY_ADDRESS", launch, lambda url, _: url))
    monkeypatch.chdir(root)
    first = services.ensure("ray", root)
    assert services.crash_error("ray", root, "127.0.0.1:1") is None, "somebody else's"
    with pytest.raises(
        GanpipeError, match=r"(?s)^this checkout's ray has ended by itself.*no room in /dev/shm"
    ) as error:
        cluster.connect(first.address)
    assert not isinstance(error.value, UnavailableError), "it would end so again"
    assert main(["services"]) == 0
    assert "ray      this checkout's ray has ended by itself" in capsys.readouterr().out

    # As a flow's stage that is tried again.
    monkeypatch.setenv("RAY_ADDRESS", first.address)
    second = services.ensure("ray", root)
    assert second.pid != first.pid
    said = capsys.readouterr().err
    assert said.startswith("warning: this checkout's ray has ended by itself")
    assert said.endswith("no room in /dev/shm\nstarting ray anew\n")

    # One that worked for long, and was killed for its memory: another try is worth it.
    assert processes.wait_gone(processes.tree(second.pid or 0), 10.0)
    record = services.STATE / "ray.json"
    record.write_text(json.dumps(asdict(second) | {"started": second.started - 2 * services.SHORT_LIFE_SECONDS}))
    assert isinstance(services.crash_error("ray", root, second.address), UnavailableError)
    services.stop(root)
    assert services.crash_message("ray", root) is None


def test_auto_is_the_one_ray_of_this_host(root, monkeypatch):
    """Ray itself would look for a head of 127.0.0.1 on the host's outer address."""
    flag = "--gcs-address=127.0.0.1:4"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", flag]) as raylet:
        assert "127.0.0.1:4" in services.rays_of_this_host()
        raylet.kill()
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(services, "rays_of_this_host", lambda: ["127.0.0.1:4"])
    assert services.ray_address(root) == "127.0.0.1:4"


def test_unknown_service():
    with pytest.raises(GanpipeError, match="no service 'rey'; did you mean 'ray'"):
        services.stop(Path("."), ["rey"])


def _record_of_a_living_ray(root: Path) -> services.Running:
    folder = root / services.STATE
    folder.mkdir(parents=True)
    me = psutil.Process()
    url, address = "http://127.0.0.1:8265", "127.0.0.1:45919"
    record = services.Running("ray", url, address, pid=me.pid, started=me.create_time())
    (folder / "ray.json").write_text(json.dumps(asdict(record)))
    return record


def test_a_copied_checkout_leaves_the_others_services_alone_and_a_moved_one_keeps_its_own(root, monkeypatch):
    def launch(*_: object) -> Launch:
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        return Launch(command, {}, url, f"{url}/", lambda: "127.0.0.1:1")

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setitem(KINDS, "ray", Kind("RAY_ADDRESS", launch, lambda url, _: f"{url}/"))
    first_root = root / "first"
    (first_root / ".dvc").mkdir(parents=True)
    first = services.ensure("ray", first_root)
    try:
        copy = Path(shutil.copytree(first_root, root / "copy"))
        assert services.running("ray", copy) is None
        assert services.stop(copy, ["ray"]) == []
        assert services.running("ray", first_root) == first, "the copy stopped the service of the other"
        moved = first_root.rename(root / "moved")
        assert services.running("ray", moved) == first
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        second = services.ensure("ray", moved)
        assert second.pid != first.pid, "it has files of its own at the former place, as Prefect's server does"
        assert not processes.is_alive(first.pid or 0, first.started)
        assert services.stop(moved, ["ray"]) == ["ray"]
        assert not first_root.exists()
    finally:
        processes.end_tree(first.pid or 0)


@pytest.mark.parametrize("first", [["-c", "exit(1)"], ["-c", "import time; time.sleep(60)"]], ids=["ends", "waits"])
def test_a_port_that_another_program_takes_while_a_service_starts(root, monkeypatch, first):
    """As when two checkouts start their services at once; without its port, MLflow ends and Ray's page does not."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken, free = other.getsockname()[1], free_port()
        second = ["-m", "http.server", "--bind", "127.0.0.1", str(free)]
        tries = iter([(taken, first), (free, second)])

        def launch(*_: object) -> Launch:
            port, arguments = next(tries)
            url = f"http://127.0.0.1:{port}"
            return Launch([sys.executable, *arguments], {}, url, f"{url}/", lambda: f"127.0.0.1:{port}")

        monkeypatch.setitem(KINDS, "ray", Kind("RAY_ADDRESS", launch, lambda url, _: f"{url}/"))
        try:
            assert services.ensure("ray", root).address == f"127.0.0.1:{free}"
        finally:
            assert services.stop(root) == ["ray"]


def test_a_service_that_a_workspaces_stage_starts_does_not_run_its_code(root, monkeypatch):
    def launch(*_: object) -> Launch:
        script = "import os, pathlib; pathlib.Path('path').write_text(os.environ['PYTHONPATH'])"
        return Launch([sys.executable, "-c", script], {}, "http://127.0.0.1:1", "http://127.0.0.1:1", lambda: "")

    monkeypatch.setitem(KINDS, "ray", Kind("RAY_ADDRESS", launch, lambda *_: ""))
    code = str(Path(services.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([code, str(root / "own")]))
    with pytest.raises(GanpipeError, match="ray ended with exit code 0 while starting"):
        services.ensure("ray", root)
    assert (root / "path").read_text() == str(root / "own")


def test_a_service_of_this_checkout_that_the_environment_names_too_is_still_its_own(root, monkeypatch):
    record = _record_of_a_living_ray(root)
    assert services.status(root)["ray"] == record
    monkeypatch.setenv("RAY_ADDRESS", record.address)
    assert services.status(root)["ray"] == record
    assert services.ray_address(root) == record.address
    monkeypatch.setenv("RAY_ADDRESS", "cluster.example:6379")
    assert services.status(root)["ray"] == services.Running("ray", "cluster.example:6379", "cluster.example:6379")


def test_the_closing_words_name_each_page_once_and_how_to_open_rays(root, monkeypatch):
    from pipelines.__main__ import _pages

    assert _pages(root) == ["pages: none is up; `make ui` starts MLflow, Prefect and Ray's dashboard"]
    # As after a flow, which tells its stages where the cluster is.
    monkeypatch.setenv("RAY_ADDRESS", _record_of_a_living_ray(root).address)
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    assert _pages(root)[1:] == [
        "  prefect  https://prefect.example",
        "  ray      http://127.0.0.1:8265  (asks for a token: `ray get-auth-token` prints it)",
    ]
    # Another's cluster has its own way in.
    monkeypatch.setenv("RAY_ADDRESS", "cluster.example:6379")
    assert _pages(root)[-1] == "  ray      cluster.example:6379"


@pytest.mark.slow
def test_a_ray_whose_folder_was_swept_away_is_started_anew(root):
    first = services.ensure("ray", root)
    try:
        shutil.rmtree(first.folder)
        assert services.is_healthy(first), "it still answers"
        second = services.ensure("ray", root)
        assert second.pid != first.pid
        assert not processes.is_alive(first.pid or 0, first.started)
    finally:
        services.stop(root, ["ray"])


@pytest.fixture
def anything() -> Iterator[int]:
    """The port of a server that answers 200 to everything."""

    class Anything(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        do_HEAD = do_GET

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Anything) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_the_server_that_answers_has_to_be_the_one_that_was_started(root, monkeypatch, anything):
    """Another program takes the port between the choice and the start."""
    monkeypatch.setattr("ganpipe.service_kinds.free_port", lambda *_: anything)
    with pytest.raises(GanpipeError, match=rf"mlflow: another program took port {anything} while mlflow"):
        services.ensure("mlflow", root)
