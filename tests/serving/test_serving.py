"""`ganpipe serve` over real HTTP, with real generators in a real registry."""

from __future__ import annotations

import base64
import io
import re
import shlex
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from registry_parts import DIGITS, make_gan, own_samples
from serving_parts import NAME, Answer, Registry, Served, served

from ganpipe import cli, processes
from ganpipe.commands.serve import _parser, address_of
from ganpipe.serving.server import ServeSettings

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ("--model", f"models:/{NAME}@champion", "--max-images", "16")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    found = Registry(tmp_path_factory.mktemp("registry"))
    found.promote(found.add("cgan", tags={"metric.fid_x": "3.5", "ganpipe.licence": "CC <b>0</b>"}, classes=DIGITS))
    return found


@pytest.fixture(scope="module")
def server(registry: Registry) -> Iterator[Served]:
    with served(registry.root, registry.environment, *FLAGS) as found:
        yield found


def own(seeds: list[int], labels: list[int], truncation: float = 1.0) -> np.ndarray:
    return own_samples(make_gan("cgan"), seeds, labels, truncation).numpy()[..., 0].astype(int)


def close(pixels: np.ndarray, expected: np.ndarray) -> bool:
    """Equal but for the rounding of matrix products of another size."""
    return pixels.shape == expected.shape and bool(np.abs(pixels.astype(int) - expected).max() <= 1)


def test_an_image_is_that_of_its_seed_label_and_truncation(server: Served) -> None:
    answer = server.get("/api/images?seed=3&label=4&truncation=0.5")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert close(answer.pixels, own([3], [4], 0.5)[0])
    assert answer.body == server.get("/api/images?seed=3&label=4&truncation=0.5").body
    assert answer.body != server.get("/api/images?seed=3&label=4&truncation=1").body


def test_a_label_may_be_the_name_of_its_class(server: Served) -> None:
    answer = server.get("/api/images?seed=3&label=digit%20four")
    assert answer.status == 200
    assert answer.body == server.get("/api/images?seed=3&label=4").body
    assert '<option value="4" selected>digit four</option>' in server.get("/?seed=3&label=digit%20four").body.decode()


def test_json_holds_the_same_pictures(server: Served) -> None:
    answer = server.get("/api/images?seed=5&label=2&count=3&format=json").json
    assert (answer["name"], answer["version"]) == (NAME, 1)
    assert [(image["seed"], image["label"]) for image in answer["images"]] == [(5, 2), (6, 2), (7, 2)]
    for image, seed in zip(answer["images"], (5, 6, 7), strict=True):
        assert base64.b64decode(image["png"]) == server.get(f"/api/images?seed={seed}&label=2").body


def test_several_in_one_png_are_a_sheet(server: Served) -> None:
    pixels = server.get("/api/images?seed=0&label=1&count=3").pixels
    assert pixels.shape == (32, 32)
    tiles = [pixels[:16, :16], pixels[:16, 16:], pixels[16:, :16]]
    assert close(np.stack(tiles), own([0, 1, 2], [1, 1, 1]))
    assert not pixels[16:, 16:].any()


def test_the_ends_of_the_way_between_two_seeds_are_their_images(server: Served) -> None:
    ends = [server.get(f"/api/images?seed={seed}&label=2").body for seed in (5, 9)]
    way = [server.get(f"/api/images?seed=5&to_seed=9&label=2&mix={mix}").body for mix in (0, 0.25, 0.5, 1)]
    assert [way[0], way[-1]] == ends
    assert len(set(way)) == 4


def test_200_requests_side_by_side_lose_none(server: Served) -> None:
    """50 seeds, each asked for as itself, again, with another truncation, and half way to the next."""
    addresses = [
        f"/api/images?seed={seed}&label={seed % 10}{more}"
        for seed in range(50)
        for more in ("", "", "&truncation=0.5", f"&to_seed={seed + 1}&mix=0.5")
    ]
    alone = {address: server.get(address) for address in set(addresses)}
    gate = threading.Barrier(200)

    def ask(address: str) -> Answer:
        gate.wait()
        return server.get(address)

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, addresses))
    assert [answer.status for answer in answers] == [200] * 200
    for address, answer in zip(addresses, answers, strict=True):
        assert answer.body == alone[address].body
    plain = np.stack([answers[4 * seed].pixels for seed in range(50)])
    assert close(plain, own(list(range(50)), [seed % 10 for seed in range(50)]))


def test_a_browser_that_has_the_image_gets_no_second_one(server: Served) -> None:
    tag = server.get("/api/images?seed=1").headers["etag"]
    again = server.get("/api/images?seed=1", If_None_Match=tag)
    assert (again.status, again.body) == (304, b"")
    assert server.get("/api/images?seed=2", If_None_Match=tag).status == 200


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "seed is missing, expected an integer from 0 to 9007199254740991"),
        ("seed=-1", "seed is '-1', expected an integer from 0 to 9007199254740991"),
        ("seed=9007199254740992", "seed is '9007199254740992', expected an integer from 0 to 9007199254740991"),
        ("seed=1.5", "seed is '1.5', expected an integer from 0 to 9007199254740991"),
        ("seed=%D9%A3", "seed is '٣', expected an integer from 0 to 9007199254740991"),
        ("seed=" + "9" * 500, f"seed is '{'9' * 40}…', expected an integer from 0 to 9007199254740991"),
        ("seed=1&seed=2", "seed is given twice, expected once"),
        ("sede=1", "unknown parameter 'sede'; did you mean 'seed'?"),
        ("seed=1&label=10", "label is '10', expected an integer from 0 to 9"),
        ("seed=1&label=-1", "label: there is no class '-1'; valid names: " + ", ".join(sorted(DIGITS))),
        ("seed=1&label=digit+tree", "label: there is no class 'digit tree'; did you mean 'digit three'?"),
        ("seed=1&truncation=0", "truncation is '0', expected a number above 0 and at most 1"),
        ("seed=1&truncation=nan", "truncation is 'nan', expected a number above 0 and at most 1"),
        ("seed=1&to_seed=2", "to_seed and mix belong together; give both or neither"),
        ("seed=1&mix=0.5", "to_seed and mix belong together; give both or neither"),
        ("seed=1&to_seed=2&mix=1.01", "mix is '1.01', expected a number from 0 to 1"),
        ("seed=1&to_seed=2&mix=0.5&count=2", "count is 2, expected 1 between two seeds"),
        ("seed=1&count=17", "count is '17', expected an integer from 1 to 16"),
        ("seed=9007199254740990&count=3", "seed + count is too large, expected seeds up to 9007199254740991"),
        ("seed=1&format=gif", "format is 'gif', expected 'png' or 'json'"),
    ],
)
def test_bad_input_is_named_in_one_line(server: Served, query: str, message: str) -> None:
    answer = server.get(f"/api/images?{query}")
    assert (answer.status, answer.json) == (400, {"error": message})


def test_the_page_says_what_is_wrong_with_its_address(server: Served) -> None:
    answer = server.get("/?seed=1&label=99", Accept="text/html")
    assert answer.status == 400
    assert "does not fit the model: label is &#39;99&#39;, expected an integer from 0 to 9" in answer.body.decode()
    assert server.get("/?seed=1&label=99").json == {"error": "label is '99', expected an integer from 0 to 9"}


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("/static/../app.py", 404),
        ("/static/..%2fapp.py", 404),
        ("/static/%2e%2e/%2e%2e/cli.py", 404),
        ("/card/..%2fmodel.json", 404),
        ("/card/%2fetc%2fpasswd", 404),
        ("//etc/passwd", 404),
        ("/static/page.css", 200),
    ],
)
def test_no_path_leads_elsewhere(server: Served, address: str, status: int) -> None:
    answer = server.get(address)
    assert answer.status == status
    if status == 404:
        assert answer.json == {"error": "there is nothing at this address"}


@pytest.mark.parametrize("address", ["/?seed=1", "/api/model", "/api/images?seed=1", "/nothing", "/static/page.js"])
def test_every_answer_has_the_security_headers(server: Served, address: str) -> None:
    headers = server.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("[::1]:8090", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
    ],
)
def test_other_hosts_names_are_refused_on_loopback(server: Served, host: str, status: int) -> None:
    answer = server.get("/api/model", Host=host)
    assert answer.status == status
    if status == 421:
        assert "127.0.0.1 or [::1] or localhost" in answer.json["error"]


def test_it_listens_on_loopback_only(server: Served) -> None:
    members = processes.tree(server.process.pid)
    connections = [connection for process in members for connection in process.net_connections("inet")]
    listening = {connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_methods_bodies_and_long_addresses_are_refused(server: Served) -> None:
    posted = server.get("/api/images?seed=1", "POST", b"x" * 1000)
    assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD")
    assert posted.json == {"error": "the method is POST, expected GET"}
    assert server.get("/api/images?seed=1", body=b"x").json == {"error": "the request has a body, expected none"}
    long = server.get("/api/images?seed=1&" + "x" * 3000)
    assert (long.status, long.json) == (414, {"error": "the address has 3018 bytes, expected at most 2048"})


def test_the_model_says_what_it_is_and_takes(server: Served) -> None:
    model = server.get("/api/model").json
    assert (model["name"], model["version"], model["gan"], model["num_labels"]) == (NAME, 1, "cgan", 10)
    assert model["classes"] == list(DIGITS)
    assert model["parameters"] == ["seed", "label", "truncation", "to_seed", "mix"]
    assert model["image"] == {"height": 16, "width": 16, "channels": 1}
    assert (model["metrics"], model["licence"], model["notes"]) == ({"fid_x": 3.0}, "CC BY-SA 3.0", [])
    assert server.get("/readyz").json == {"status": "ready", "version": 1}


def test_a_version_without_a_card_shows_its_tags_as_text(server: Served) -> None:
    page = server.get("/?seed=1").body.decode()
    assert '<th scope="row">fid_x</th><td>3.5</td>' in page
    assert "CC &lt;b&gt;0&lt;/b&gt;" in page


def test_an_address_without_a_seed_gets_a_fresh_one(server: Served) -> None:
    answers = [server.get("/") for _ in range(3)]
    assert {answer.status for answer in answers} == {303}
    assert len({answer.headers["location"] for answer in answers}) == 3
    assert re.fullmatch(r"/\?seed=\d+", answers[0].headers["location"])


def test_at_sigterm_requests_under_way_finish(registry: Registry) -> None:
    shutil.copy(ROOT / "params.yaml", registry.root)  # names the model
    with served(registry.root, registry.environment, "--burst", "1000") as server:
        sockets = []
        for seed in range(40):
            client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            client.sendall(f"GET /api/images?seed={seed}&count=16 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            sockets.append(client)
        server.get("/healthz")
        server.process.send_signal(signal.SIGTERM)
        answers = [b"".join(iter(lambda client=client: client.recv(65536), b"")) for client in sockets]
        assert server.process.wait(60) == 0
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert Image.open(io.BytesIO(body)).size == (64, 64)
    lines = [line.split(" ", 3)[3] for line in server.log.read_text().splitlines()]
    where = f"http://127.0.0.1:{server.port} shows models:/{NAME}@champion"
    assert lines == [f"serving version 1 of {NAME}", where, "stopped"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model", "ganpipe-mnist"],
            "--model: got 'ganpipe-mnist', expected models:/NAME@ALIAS or models:/NAME/VERSION",
        ),
        (["--model", "models:/ganpipe-mnits@champion"], "; did you mean 'ganpipe-mnist'?"),
        (["--model", f"models:/{NAME}@champoin"], f"--model: {NAME} has no alias 'champoin'; did you mean 'champion'?"),
        (["--model", f"models:/{NAME}/77"], f"--model: models:/{NAME}/77: "),
        (["--model", f"models:/{NAME}/1", "--burst", "3"], "--burst: got 3, expected at least 64"),
        (["--model", f"models:/{NAME}/1", "--port", "70000"], "--host 127.0.0.1 --port 70000: "),
    ],
)
def test_what_cannot_be_served_is_said_at_once(
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.tracker.uri)
    monkeypatch.chdir(registry.root)
    assert cli.main(["serve", "--port", "0", *arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert message in said[0]


@pytest.mark.parametrize(
    ("asked", "address"),
    [
        ("@challenger", "models:/ganpipe-mnist@challenger"),
        ("3", "models:/ganpipe-mnist/3"),
        ("models:/other@champion", "models:/other@champion"),
    ],
)
def test_an_alias_or_a_number_alone_is_one_of_the_settings_model(
    monkeypatch: pytest.MonkeyPatch, asked: str, address: str
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert address_of(asked) == address


def test_a_database_that_is_not_there_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["serve", "--port", "0", "--model", f"models:/{NAME}@champion"]) == 2
    assert (
        f"{tmp_path}/mlflow.db: no MLflow database; set MLFLOW_TRACKING_URI, or make a model: `make run`"
        in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


def documented() -> list[str]:
    """The commands of docs/operations-page.md."""
    text = (ROOT / "docs" / "operations-page.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def test_the_documented_commands_work(server: Served) -> None:
    """curl's addresses are asked of the server, and the flags of `ganpipe serve` are read by its own parser; that it
    serves with them is what the other tests show."""
    asked = 0
    for command in map(shlex.split, documented()):
        if command[0] == "curl":
            addresses = [word for word in command[1:] if word.startswith("http")]
            for address in addresses:
                assert address.startswith("http://127.0.0.1:8090/")
                assert server.get(address.removeprefix("http://127.0.0.1:8090")).status == 200, address
                asked += 1
        else:
            assert command[:2] == ["ganpipe", "serve"]
            ServeSettings(**{"model": "", **vars(_parser().parse_args(command[2:]))})
    assert asked >= 6


def test_every_flag_is_documented() -> None:
    text = (ROOT / "docs" / "operations-page.md").read_text(encoding="utf-8")
    flags = [flag for action in _parser()._actions for flag in action.option_strings if flag.startswith("--")]
    assert [flag for flag in flags if f"`{flag}`" not in text] == ["--help"]
