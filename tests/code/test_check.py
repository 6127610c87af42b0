"""`ganpipe check`, and the stages themselves: bad input gets one clear line, before long work."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from training_parts import SMALL, make_loop

from ganpipe import gans, prefect_api
from ganpipe.cli import main
from ganpipe.commands.check import check_gan_and_data
from ganpipe.data.ingest.shards import write_shards
from ganpipe.data.shards.manifest import Manifest
from ganpipe.data.sources.folder import Folder
from ganpipe.data.sources.openmoji import Openmoji
from ganpipe.errors import EXIT_UNAVAILABLE, GanpipeError
from ganpipe.gans.base import View
from ganpipe.params import Params, load_params
from ganpipe.training.feed import data_spec_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a params.yaml for four images without labels, and no Ray or MLflow of the caller's."""
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GANPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("L", (16, 16), 40 * number).save(tmp_path / "images" / f"{number}.png")
    write(tmp_path, data__source="folder", data__image_size=16, train__gan="gan", register__require_commit=False)
    return tmp_path


def write(folder: Path, **changes: Any) -> None:
    """params.yaml: as it is in `folder`, else the committed one, with some dotted keys set."""
    path = folder / "params.yaml"
    values = yaml.safe_load((path if path.exists() else ROOT / "params.yaml").read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        section = values
        for parent in parents:
            section = section[parent]
        section[last] = value
    path.write_text(yaml.safe_dump(values))


def error_of(command: str, capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The one line that a failing command prints."""
    assert main([command]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_workplace_that_is_ready(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert "ready" in capsys.readouterr().out


def test_a_training_that_is_too_short_for_its_stages(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"train__gan": "progan", "data__image_size": 32, "data__enlarge": "pad", "train__batch_size": 2}
    write(workplace, **settings, train__num_images=6, tune__num_trials=0)
    assert "train.num_images: got 6; with train.batch_size 2 these are 3 steps" in error_of("check", capsys)
    write(workplace, train__num_images=32)
    assert main(["check"]) == 0
    capsys.readouterr()
    write(workplace, tune__num_trials=1, tune__num_images=4)
    assert "tune.num_images: got 4; " in error_of("check", capsys)


def test_an_augmentation_that_the_gan_does_not_have(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workplace, train__gan="wgan_gp", train__augment={"kind": "ada"})
    expected = "train.augment.kind: got ada; expected none or diffaugment for WganGp"
    assert expected in error_of("check", capsys)


def test_one_class_is_no_choice(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "images" / "cats").mkdir()
    for path in (workplace / "images").glob("*.png"):
        path.rename(workplace / "images" / "cats" / path.name)
    write(workplace, train__gan="cgan", sources__folder__labels="subfolders")
    assert main(["check"]) == 2
    assert "Cgan needs images of at least 2 classes, and the field 'label' has 1" in capsys.readouterr().err


def test_no_commit_to_name_as_the_origin(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(workplace.parent))
    write(workplace, register__require_commit=True)
    asked = "(if that does not matter: register.require_commit: false)"
    for command in ("check", "register"):
        error = error_of(command, capsys)
        assert error.startswith(f"error: {workplace} is in no git repository: `git init`, then commit it; ")
        assert error.endswith(asked)
    git = ["git", "-C", str(workplace), "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert f"{workplace} has no commit yet: `git commit`; " in error_of("check", capsys)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "first"], check=True)
    assert main(["check"]) == 0
    assert "ready" in capsys.readouterr().out
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way to try it without a second user
    remedy = f"allow it once with `git config --global --add safe.directory {workplace}`; "
    assert f"{workplace}: git refuses it, because another user owns it: {remedy}" in error_of("check", capsys)
    write(workplace, register__require_commit=False)
    assert main(["check"]) == 0
    capsys.readouterr()
    write(workplace, register__require_commit=True)
    monkeypatch.setenv("PATH", str(workplace))
    assert "git: cannot be run (No such file or directory); install it; " in error_of("check", capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__gan": "cgan"}, "Cgan needs the field 'label', which the dataset does not have (it has image)"),
        ({"train__gan": "dcgan", "data__image_size": 28}, "data.image_size: got 28; dcgan needs a power of two"),
        ({"sources__folder__path": "imagse"}, "imagse"),
        (
            {"data__source": "imagefolder", "sources__imagefolder__text_column": "caption"},
            "sources.imagefolder.text_column: caption needs a table, but images has no metadata.csv or metadata.jsonl",
        ),
        (
            {"data__source": "pairs", "sources__pairs__target_path": "targets"},
            "sources.pairs.target_path: targets does not exist",
        ),
        ({"data__source": "webdataset"}, "sources.webdataset.shards: '*.tar' matches no file in images"),
        (
            {"data__source": "openmoji", "sources__openmoji__groups": ["smilies"]},
            "sources.openmoji.groups: got ['smilies']; there is no group 'smilies'",
        ),
        (
            {"cluster__num_workers": 60, "cluster__cpus_per_worker": 9},
            "cluster: asks for 60 workers of 9 CPUs; this machine",
        ),
        (
            {"cluster__num_workers": [50, 60], "cluster__cpus_per_worker": 9},
            "cluster: asks for 50 workers of 9 CPUs; this machine",
        ),
        ({"train__batch_size": 4, "cluster__num_workers": [1, 8]}, "cluster.num_workers: got 8, more than train.batch"),
        (
            {"tune__num_trials": 1, "tune__cpus_per_worker": 999},
            "tune: asks for 1 workers of 999 CPUs; this machine has",
        ),
        ({"tune__player_space": {"critic": {}}}, "tune.player_space.critic: the GAN has no such player"),
        (
            {"register__metric": "fid_inception"},
            "register.metric: no metric 'fid_inception' is measured; valid names: data_copying_",
        ),
        (
            {"register__conditions": {"recall": {"min": 0}}},
            "register.conditions.recall: no metric 'recall' is measured",
        ),
        ({"register__metric": "fid_intra_efficientnet_lite0"}, "no metric 'fid_intra_efficientnet_lite0' is measured"),
        ({"train__batch_size": 1, "cluster__num_workers": 2}, "cluster.num_workers: got 2, more than train.batch_size"),
        (
            {"train__batch_size": 1, "tune__num_trials": 1, "tune__workers_per_trial": 2},
            "tune.workers_per_trial: got 2, more than train.batch_s",
        ),
        (
            {"tune__num_trials": 1, "tune__space": {}},
            "tune.space: nothing to search; name lr, beta1 or beta2, or set tune.num_trials: 0",
        ),
        (
            {"tune__num_trials": 1, "tune__start_from": "none.csv"},
            "tune.start_from: got 'none.csv'; there is no such file",
        ),
        (
            {"train__start_from": "artifacts/none"},
            "train.start_from: got 'artifacts/none'; there is no such file",
        ),
        ({"data__limit": 1}, "data.limit: got 1, and at least 4 images are needed, 4 of them in the train split"),
        (
            {"evaluate__num_neighbours": 1000},
            "data.source: folder has 4, and at least 1001 images are needed, 1001 of them in the train split, to",
        ),
        (
            {"evaluate__split": "validation"},
            "data.source: folder has 4, and at least 5 images are needed, 4 of them in the validation split",
        ),
        (
            {"evaluate__split": "validation", "data__validation_fraction": 0},
            "evaluate.split: got 'validation', and data.validation_fraction is 0; raise it",
        ),
        (
            {
                "evaluate__extractor": "inception",
                "evaluate__resize": None,
                "evaluate__inception_path": "none.pt",
                "register__metric": "fid_inception",
            },
            "none.pt",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_said_in_one_line(
    changes: dict[str, Any], message: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(workplace, **changes)
    assert message in error_of("check", capsys)


def test_weights_to_start_from_are_compared_with_the_networks(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for gan in ("gan", "dcgan"):
        (workplace / gan).mkdir()
        save_file(make_loop(gan).state.generator_state(), workplace / gan / "generator.safetensors")
        digest = hashlib.sha256((workplace / gan / "generator.safetensors").read_bytes()).hexdigest()
        (workplace / gan / "model.json").write_text(json.dumps({"gan": gan, "digests": {"generator": digest}}))
    small = {f"gans__gan__{key}": value for key, value in SMALL["gan"].items()}
    write(workplace, train__start_from="gan", **small)
    assert main(["check"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("train.start_from: gan (a package of gan): ")
    assert said[1].startswith("  6 start at random, because it has no such name and shape: discriminator.")
    write(workplace, train__start_from="dcgan")
    assert "dcgan (a package of dcgan): its weights fit nowhere in the networks of" in error_of("check", capsys)


def test_a_place_that_cannot_be_written_is_said_before_the_ingest(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / ".dvc" / "tmp").mkdir(parents=True)
    assert main(["check"]) == 0
    capsys.readouterr()
    (workplace / ".dvc" / "cache").write_text("in the way")
    said = error_of("check", capsys)
    assert said.startswith(f"error: {workplace}/.dvc/cache: DVC's cache (`dvc cache dir`) cannot be written there: ")
    (workplace / ".dvc" / "cache").unlink()
    (workplace / "artifacts").write_text("in the way")
    assert error_of("check", capsys).startswith("error: artifacts: the outputs cannot be written there: ")


@pytest.mark.slow
def test_a_read_only_cache_is_said_before_the_ingest(workplace: Path) -> None:
    cache = workplace / "shared" / "files" / "md5" / "ab"
    cache.mkdir(parents=True)
    (workplace / ".dvc").mkdir()
    (workplace / ".dvc" / "config").write_text(f"[cache]\n    dir = {workplace}/shared\n")
    command = [sys.executable, "-m", "ganpipe", "check"]
    if os.geteuid() == 0:  # whom no mode stops: a mount of its own
        mount = f'mount -t tmpfs tmpfs {cache} && mount -o remount,ro {cache} && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, "sh", *command]
    cache.chmod(0o555)
    done = subprocess.run(command, cwd=workplace, capture_output=True, text=True, check=False)
    cache.chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(
        rf"error: {cache}: DVC's cache \(`dvc cache dir`\) cannot be written there: (Read-only|Permission) .*\n",
        done.stderr,
    )


@pytest.mark.parametrize("stage", ["reference", "tune", "train", "evaluate"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluate__num_neighbours": 4},
            "evaluate.num_neighbours: got 4, for which the train split needs 5 images; it has 4: add images, or lower",
        ),
        (
            {"data__limit": 1, "evaluate__num_neighbours": 1},
            "the train split has 1 image, and FID needs 2 at the least",
        ),
        (
            {"evaluate__split": "validation", "data__validation_fraction": 0.001},
            "evaluate.split: got 'validation', and that split has no image (train has 4); add images, raise data.valid",
        ),
    ],
    ids=["few", "one", "validation"],
)
def test_too_few_images_are_refused_before_anything_is_computed(
    changes: dict[str, Any], message: str, stage: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(workplace, data__validation_fraction=0)
    write(workplace, **changes)
    assert main(["ingest"]) == 0
    capsys.readouterr()
    assert message in error_of(stage, capsys)
    assert not (workplace / "artifacts" / "reference").exists()


def test_a_source_folder_without_images(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (workplace / "images").iterdir():
        path.unlink()
    assert "images" in error_of("check", capsys)
    assert "images" in error_of("ingest", capsys)


def test_a_file_that_dvc_stops_at(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`unreadable: skip` copes with it, but DVC looks at the folder before any stage runs."""
    write(workplace, data__unreadable="skip")
    (workplace / "images" / "gone.png").symlink_to("elsewhere.png")
    assert main(["check"]) == 0  # no DVC here
    capsys.readouterr()
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=workplace, check=True)
    (workplace / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    assert error_of("check", capsys) == (
        "error: images/gone.png: a link to elsewhere.png, which is not there. DVC watches images and stops at it: mend "
        "or remove it, or name it in .dvcignore"
    )
    (workplace / ".dvcignore").write_text("gone.png\n")
    assert main(["check"]) == 0
    (workplace / "masks").mkdir()
    (workplace / "masks" / "lost.png").symlink_to("elsewhere.png")
    write(workplace, sources__pairs__source_path="masks")
    assert "masks/lost.png: a link to elsewhere.png, which is not there. DVC watches masks" in error_of("check", capsys)


def test_mlflow_that_does_not_answer(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert "MLflow at http://127.0.0.1:1 does not answer" in error_of("check", capsys, EXIT_UNAVAILABLE)


Serve = Callable[[dict[str, tuple[int, str]]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts an HTTP server that answers at each path with a status and a text, elsewhere with 404; its URL."""
    servers = []

    def start(answers: dict[str, tuple[int, str]]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, text = answers.get(self.path, (404, "not found"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Not among the test's output."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("address", "message", "code"),
    [
        ("http://127.0.0.1:1/api", "Prefect at http://127.0.0.1:1/api does not answer ([Errno 111] Connection", 75),
        ("127.0.0.1:4200/api", "PREFECT_API_URL: got '127.0.0.1:4200/api', which is no address of a server", 2),
        ("http://127.0.0.1:42oo/api", "PREFECT_API_URL: got 'http://127.0.0.1:42oo/api', which is no address", 2),
        ("http://me:secret@127.0.0.1:1/api", "Prefect at http://***@127.0.0.1:1/api does not answer", 75),
    ],
)
def test_a_prefect_that_does_not_answer(
    address: str,
    message: str,
    code: int,
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", address)
    line = error_of("check", capsys, code)
    assert message in line
    assert "correct PREFECT_API_URL (http://host:4200/api), or unset it" in line


def test_what_answers_where_prefect_is_said_to_be(
    workplace: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A dead proxy does not stand between this machine and itself.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    prefect = serve({"/api/admin/version": (200, '"3.8.8"'), "/admin/version": (200, "<html>the page</html>")})
    for address, message, code in (
        (prefect, f"{prefect} answers, but not as Prefect's API does", 2),
        (f"{prefect}/other", f"{prefect}/other answers with status 404, as Prefect's API does not", 2),
        (f"https{prefect[4:]}/api", "does not answer as a server at such an address does ([SSL", 2),
        (serve({"/admin/version": (401, "")}), "refuses access (status 401); set PREFECT_API_AUTH_STRING", 2),
        (serve({"/admin/version": (503, "")}), "answers with status 503", 75),
    ):
        monkeypatch.setenv("PREFECT_API_URL", address)
        assert message in error_of("check", capsys, code)
    cloud = serve({"/health": (200, "true")})  # tells no version
    for address in (f"{prefect}/api", f"{prefect}/api/", cloud):
        prefect_api.check_reachable(address)
    monkeypatch.setenv("PREFECT_API_URL", f"{prefect}/api")
    assert main(["check"]) == 0


def test_several_rays_on_this_host(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of them RAY_ADDRESS=auto means is for the user to say; it is said at once."""
    flags = [f"--gcs-address=127.0.0.1:{port}" for port in (1, 2)]
    raylets = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", flag]) for flag in flags]
    try:
        monkeypatch.setenv("RAY_ADDRESS", "auto")
        line = error_of("check", capsys, EXIT_UNAVAILABLE)
        assert line.startswith("error: RAY_ADDRESS: auto stands for the Ray of this host, where ")
        assert "127.0.0.1:1, " in line
        assert "127.0.0.1:2" in line
        assert "run; set it to host:port, or unset it" in line
    finally:
        for raylet in raylets:
            raylet.kill()
            raylet.wait()


@pytest.mark.parametrize("name", ["a%b", "what?", "{x}", "a:b", 'a"b', "$HOME", "a\\b", "line\nbreak", "latin-\udce9"])
def test_a_folder_whose_name_does_not_fit_is_refused_by_every_command(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    for command in ("check", "train", "models", "up"):
        assert f"{str(tmp_path / name)!r}: the path has a " in error_of(command, capsys)


def test_a_folder_with_any_other_name(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's database, there already and looked at, is found, and nothing is made beside it."""
    root = workplace / ("it's #1 & co; é😀 [x] (a)=b+c@d,~!^*|<>" + "n" * 150)
    root.mkdir()
    (root / "mlflow.db").touch()
    monkeypatch.chdir(root)
    shutil.copy(workplace / "params.yaml", root)
    write(root, sources__folder__path="../images")
    assert main(["check"]) == 0
    assert sorted(path.name for path in workplace.iterdir()) == sorted(["images", "params.yaml", root.name])


def test_a_command_that_names_an_interpreter_of_before_a_move(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = workplace / "bin" / "ganpipe"
    command.parent.mkdir()
    command.write_text("#!/moved/away/python\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(command.parent / "python"))
    line = error_of("check", capsys)
    assert f"{command}: the stages of dvc.yaml call it, and it does not run ([Errno 2] No such file" in line
    assert "after a move remove .venv and run `make venv`" in line


def test_a_cache_that_cannot_be_written(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GANPIPE_CACHE", "/dev/null/cache")
    said = error_of("check", capsys)
    assert said.startswith("error: /dev/null/cache: this host's cache (GANPIPE_CACHE) cannot be written there: ")


def test_no_room_on_the_disk(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage(workplace))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12 - 1000, 1000))
    assert "0.0 GiB free, about 1.0 GiB are needed" in error_of("check", capsys)


@pytest.mark.parametrize("stage", ["reference", "tune", "train", "evaluate", "register"])
def test_a_stage_without_its_inputs_names_what_makes_them(
    stage: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_of(stage, capsys)
    assert "no such file" in line
    assert "ingest" in line or "dvc repro" in line


def test_a_damaged_shard_stops_every_stage_that_reads_it(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workplace, data__validation_fraction=0)
    assert main(["ingest"]) == 0
    shard = workplace / "artifacts" / "shards" / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    capsys.readouterr()
    for stage in ("reference", "tune"):
        assert "train-000000.tar: damaged" in error_of(stage, capsys)


def test_the_search_stage_fails_early_for_a_gan_that_does_not_fit(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ingest"]) == 0
    capsys.readouterr()
    write(workplace, train__gan="cgan")
    assert "Cgan needs the field 'label'" in error_of("tune", capsys)


def test_stages_take_no_arguments(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--gan", "gan"]) == 2
    assert "takes no arguments, got '--gan gan'; settings are in params.yaml" in capsys.readouterr().err


def test_no_search_leaves_the_gans_own_settings(workplace: Path) -> None:
    write(workplace, tune__num_trials=0)
    assert main(["ingest"]) == 0
    assert main(["tune"]) == 0
    tune = workplace / "artifacts" / "tune"
    assert (tune / "best.json").read_text() == "{}\n"
    assert (tune / "trials.png").read_bytes().startswith(b"\x89PNG")


def said_by_check(params: Params) -> str | None:
    """What the check of GAN and data refuses; None where it passes."""
    try:
        check_gan_and_data(params)
    except GanpipeError as error:
        return str(error)
    return None


def said_by_train(params: Params, manifest: Manifest) -> str | None:
    """What the networks of a training on these shards refuse."""
    try:
        with torch.device("meta"):  # without their weights
            gans.load(params.train.gan)(params.gan_config, data_spec_of(manifest))
    except GanpipeError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("fields", "labels"), [("image", "group"), ("sketch", "none")])
def test_check_and_training_agree_on_what_a_gan_can_have(workplace: Path, fields: str, labels: str) -> None:
    settings = {"fields": fields, "labels": labels, "groups": ["activities", "objects"], "skin_tones": False}
    write(workplace, data__source="openmoji", data__limit=20, sources__openmoji=settings)
    params = load_params()
    manifest = write_shards(params.data, Openmoji(params.source_settings), workplace / "shards")
    said = {}
    for name in gans.names():
        write(workplace, train__gan=name)
        params = load_params()
        said[name] = said_by_check(params)
        assert said_by_train(params, manifest) == said[name]
    if fields == "image":
        assert [said[name] for name in ("gan", "dcgan", "wgan_gp", "cgan")] == [None] * 4
    else:
        there = "the dataset does not have (it has source, target, text)"
        assert (
            said["gan"]
            == f"OriginalGan needs the field 'image', which {there}; choose another train.gan or data.source"
        )


def test_check_and_training_agree_on_views(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GAN of two domains needs labels: both say so in the same words."""
    gan = gans.load("gan")
    views = {"horse": View("image", "label", 0), "zebra": View("image", "label", 1)}
    monkeypatch.setattr(gan, "origins", classmethod(lambda cls, config, data: views))
    params = load_params()
    manifest = write_shards(params.data, Folder(params.source_settings), workplace / "shards")
    said = said_by_check(params)
    assert said is not None
    assert said.startswith("OriginalGan needs the field 'label', which the dataset does not have (it has image)")
    assert said_by_train(params, manifest) == said
