"""`ganpipe report`: what is gathered of a run, finished or not, and where the page goes."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import report_parts
from report_parts import BEST, HOSTILE, METRICS, OBJECTIVE, SECONDS, TRIALS, Checkout, run

from ganpipe.commands.report import main
from ganpipe.params import load_params
from ganpipe.reporting import charts, dag, svg
from ganpipe.reporting.contents import Curve, Report, Stage
from ganpipe.reporting.gather import gather
from ganpipe.reporting.page import render
from ganpipe.tracking.runs import Tracker

STAGES = ["code", "ingest", "reference", "tune", "train", "evaluate", "register"]


@pytest.fixture
def checkout(finished: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may change, and the working directory."""
    root = tmp_path / "checkout"
    shutil.copytree(finished.root, root, symlinks=True, ignore=shutil.ignore_patterns("report.html"))
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return root


def report_of(root: Path) -> Report:
    return gather(root, load_params(root / "params.yaml"))


# --- a finished run


def test_a_finished_run_is_gathered_whole(finished: Checkout) -> None:
    report = report_of(finished.root)
    assert report.missing == []
    assert [stage.name for stage in report.stages if stage.state == "up to date"] == [s.name for s in report.stages]
    assert {stage.name: stage.seconds for stage in report.stages} == {"code": None} | SECONDS
    train = next(stage for stage in report.stages if stage.name == "train")
    assert set(train.upstream) == {"code", "ingest", "tune"}
    digests = {out.path: out.digest for out in train.outs}
    assert re.fullmatch(r"[0-9a-f]{32}", digests["artifacts/train/generator.safetensors"])
    assert train.params["train"]["gan"] == "cgan"

    assert report.training is not None
    assert (report.training.gan, report.training.images_seen, report.training.run_key) == ("cgan", 640, "ab12")
    curves = {curve.name: curve.points for curve in report.curves}
    assert len(curves["generator_adversarial"]) == 10
    assert len(curves["discriminator_adversarial"]) == 9  # what is no number is left out
    assert [curve.points for curve in report.scores] == [[(320.0, 900.0), (640.0, 12.5)]]
    assert [(grid.step, grid.images_seen) for grid in report.grids] == [(1, 64), (5, 320), (10, 640)]

    assert report.search is not None
    assert report.search.objective == OBJECTIVE
    assert [trial.number for trial in report.search.trials if trial.best] == [BEST]
    assert [trial.finished for trial in report.search.trials] == [seen == 8000 for seen, _ in TRIALS]
    assert report.search.trials[3].objective is None

    assert report.evaluation is not None
    assert {metric.name: metric.value for metric in report.evaluation.metrics} == METRICS
    assert report.evaluation.class_fids[0] == (HOSTILE, 99.5)
    assert report.evaluation.protocol["reference.extractor"] == "efficientnet_lite0"
    assert [figure.title for figure in report.figures] == ["Samples", "Interpolation", "Nearest training images"]
    assert [metric.tells for metric in report.evaluation.metrics if not metric.tells] == []
    assert [metric.interval for metric in report.evaluation.metrics if metric.interval] == [(1.25, 2.5)]
    assert "1.25 to 2.5" in render(report)
    assert report.alarms == [("collapse", 320, f"few kinds {HOSTILE}")]
    assert "after 320 images: few kinds" in render(report)
    assert report.real is not None
    assert f'src="{report.real.uri}"' in render(report)

    assert report.registered is not None
    assert (report.registered.version, report.registered.champion) == (1, 1)
    assert report.registered.aliases == ("challenger", "champion")
    assert report.registered.decision is not None
    assert report.registered.decision.promote
    assert [move["alias"] for move in report.registered.moves] == ["challenger", "champion"]
    assert report.run is not None
    assert report.run.run_id == finished.run_id
    assert report.run.packages == {"torch": "2.13.0", "ray": "2.60.0"}
    assert report.run.tags["ganpipe.git.dirty"] == "true"
    assert report.git["ganpipe.git.dirty"] == "false"
    assert report.data is not None
    assert report.data.licence == HOSTILE
    assert report.data.num_images == {"train": 90, "validation": 10}


def test_the_command_writes_the_page_and_keeps_it_in_mlflow(
    finished: Checkout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(finished.root / "artifacts")  # anywhere in the checkout
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main([]) == 0
    said = capsys.readouterr().out
    page = (finished.root / "report.html").read_text(encoding="utf-8")
    assert "report   ../report.html\n" in said
    assert f"report.html of the training's run {finished.run_id}" in said
    client = Tracker.at(finished.root, "ganpipe").client()
    kept = client.download_artifacts(finished.run_id, "report.html", str(tmp_path))
    assert Path(kept).read_text(encoding="utf-8") == page
    assert client.get_run(finished.run_id).info.status == "FINISHED"  # as it was
    # git and DVC see the same checkout as before.
    assert report_of(finished.root).git["ganpipe.git.dirty"] == "false"
    assert {stage.state for stage in report_of(finished.root).stages} == {"up to date"}
    assert page.startswith("<!doctype html>")
    assert str(finished.root) not in page


def test_another_place_can_be_named(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", "artifacts/page.html"]) == 0
    assert (checkout / "artifacts" / "page.html").is_file()
    assert not (checkout / "report.html").exists()
    assert main(["--out", "new/folder/page.html"]) == 0
    assert main(["--out", "new/folder"]) == 0
    assert sorted(path.name for path in (checkout / "new" / "folder").iterdir()) == ["page.html", "report.html"]
    from ganpipe.errors import GanpipeError

    for out in ("page.pdf", "params.yaml/page.html"):
        with pytest.raises(GanpipeError, match=f"--out: .*{out}"):
            main(["--out", out])


# --- a run that is not finished, or whose files are damaged


def test_after_ingest_alone_the_page_says_what_the_rest_would_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report_parts.copy_project(tmp_path)
    report_parts.write_shards(tmp_path)
    report_parts.run(tmp_path, "dvc", "commit", "--force", "--quiet", "ingest")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "missing: train, evaluate, register, tune, durations, MLflow" in said
    assert "page not logged: mlflow.db is not there yet" in said
    assert not (tmp_path / "mlflow.db").exists()  # asking makes none
    states = {stage.name: stage.state for stage in report_of(tmp_path).stages}
    assert states == {name: "up to date" if name == "ingest" else "not run" for name in STAGES}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "artifacts/train/curves" in page
    assert "<code>dvc repro train</code>" in page


def test_before_anything_ran_there_is_a_page(tmp_path: Path) -> None:
    report_parts.copy_project(tmp_path)
    report = report_of(tmp_path)
    assert {stage.state for stage in report.stages} == {"not run"}
    assert "ingest" in {item.part for item in report.missing}
    assert "no data yet, no generator yet" in render(report)


def test_a_search_that_was_skipped_is_nothing_missing(checkout: Path) -> None:
    folder = checkout / "artifacts" / "tune"
    (folder / "trials.csv").write_text("trial,images_seen\n")
    (folder / "best.json").write_text("{}")
    report = report_of(checkout)
    assert report.missing == []
    assert "tune.num_trials is 0" in render(report)
    tune = next(stage for stage in report.stages if stage.name == "tune")
    assert tune.state == "changed"
    assert "artifacts/tune/best.json modified" in tune.reasons


def test_without_labels_there_is_no_fid_of_classes_and_nothing_missing(checkout: Path) -> None:
    folder = checkout / "artifacts" / "evaluate"
    (folder / "class_fid.csv").write_text("class,fid\n")
    protocol = json.loads((folder / "protocol.json").read_text())
    (folder / "protocol.json").write_text(json.dumps(protocol | {"labels": "none"}))
    report = report_of(checkout)
    assert report.missing == []  # the protocol's hash names the version, and that is as it was
    assert "this GAN draws its images without labels" in render(report)


def test_classes_that_cannot_be_measured_are_named(checkout: Path) -> None:
    (checkout / "artifacts" / "evaluate" / "class_fid.csv").write_text(
        "class,fid,real,generated\na,12.5,40,50\nb,nan,1,2\n"
    )
    report = report_of(checkout)
    assert report.evaluation is not None
    assert report.evaluation.class_fids == [("a", 12.5)]
    assert report.evaluation.unmeasured == ("b",)
    assert "Too few images for an FID of their own: b." in render(report)


def test_one_dvc_yaml_serves_a_gan_of_other_players_and_figures(checkout: Path) -> None:
    """Without an interpolation, without `generator_adversarial`, without labels."""
    curves, figures = checkout / "artifacts/train/curves", checkout / "artifacts/evaluate/figures"
    for path in (*curves.iterdir(), figures / "interpolation.png", checkout / "artifacts/evaluate/class_fid.csv"):
        path.unlink()
    (checkout / "artifacts/evaluate/class_fid.csv").write_text("class,fid,real,generated\n")
    (curves / "translator_cycle.csv").write_text("step,images_seen,translator_cycle\n1,64,3\n2,128,2\n")
    (figures / "odd_one.png").write_bytes((figures / "samples.png").read_bytes())
    run(checkout, "dvc", "commit", "--force", "--quiet")
    run(checkout, "dvc", "plots", "show")
    page = (checkout / "dvc_plots" / "index.html").read_text()
    assert "curves/translator_cycle.csv" in page
    assert "generator_adversarial" not in page
    shown = {path.name.rpartition("figures_")[2] for path in (checkout / "dvc_plots" / "static").glob("*_figures_*")}
    assert shown == {"samples.png", "nearest.png", "odd_one.png"}
    report = report_of(checkout)
    assert report.missing == []
    assert [curve.name for curve in report.curves] == ["translator_cycle"]
    assert [(figure.title, bool(figure.tells)) for figure in report.figures] == [
        ("Samples", True),
        ("Nearest training images", True),
        ("odd one", False),
    ]
    assert "odd one of cgan." in render(report)


def test_a_changed_setting_shows_at_its_stages(checkout: Path) -> None:
    params = checkout / "params.yaml"
    params.write_text(params.read_text().replace("minimum_improvement: auto", "minimum_improvement: 0.5"))
    stages = {stage.name: stage for stage in report_of(checkout).stages}
    assert stages["register"].state == "changed"
    assert any("register" in reason and "modified" in reason for reason in stages["register"].reasons)
    assert stages["register"].params["register"]["minimum_improvement"] == "auto"  # what it ran with
    assert stages["evaluate"].state == "up to date"


DAMAGE = {
    "artifacts/evaluate/metrics.json": ('{"fid', "cannot be read"),
    "artifacts/evaluate/protocol.json": ("[1]", "holds a list"),
    "artifacts/evaluate/class_fid.csv": ("name,value\n1,2\n", "no column class, fid"),
    "artifacts/evaluate/figures/nearest.png": ("no picture", "cannot identify image file"),
    "artifacts/train/curves/score_real.csv": ("images_seen,a\n1,2,3\n", "a row has more values than the header names"),
    "artifacts/train/model.json": ("", "cannot be read"),
    "artifacts/tune/trials.csv": ("\0", "no column images_seen, trial"),
    "artifacts/shards/manifest.json": ("{}", "not a manifest of this version"),
    ".ganpipe/stage_seconds.json": ("[]", "cannot be read"),
    "dvc.yaml": ("stages: [", "the stage graph cannot be read"),
    "dvc.lock": ("stages: [", "cannot be read"),
}


@pytest.mark.parametrize("path", DAMAGE)
def test_a_damaged_file_costs_its_part_of_the_page_only(checkout: Path, path: str) -> None:
    content, reason = DAMAGE[path]
    (checkout / path).unlink()  # DVC's cache may share its bytes
    (checkout / path).write_text(content)
    report = report_of(checkout)
    notes = [item.text for item in report.missing]
    assert any(reason in text for text in notes), notes
    page = render(report)
    assert "What is missing" in page
    assert str(checkout) not in page
    whole = [report.data, report.search, report.training, report.evaluation]
    assert sum(part is not None for part in whole) >= 3


def test_a_picture_that_is_cut_short_is_left_out(checkout: Path) -> None:
    samples = checkout / "artifacts" / "train" / "samples"
    data = (samples / "0000005.png").read_bytes()
    (samples / "0000005.png").unlink()
    (samples / "0000005.png").write_bytes(data[: len(data) // 2])
    report = report_of(checkout)
    assert [grid.step for grid in report.grids] == [1, 10]
    assert any("0000005.png cannot be read" in item.text for item in report.missing)


def test_a_large_picture_goes_in_smaller(checkout: Path) -> None:
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (2000, 1000, 3), np.uint8)
    path = checkout / "artifacts" / "evaluate" / "figures" / "samples.png"
    path.unlink()
    Image.fromarray(noise).save(path)
    picture = report_of(checkout).figures[0].picture
    assert (picture.width, picture.height) == (700, 1400)
    assert picture.uri.startswith("data:image/jpeg;base64,")
    assert len(picture.uri) < path.stat().st_size
    assert "1000 x 2000" in picture.note


def test_mlflow_that_does_not_answer_is_a_line_and_no_failure(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:secret@127.0.0.1:9")  # nobody listens there
    assert main([]) == 0
    said = capsys.readouterr().out
    assert re.search(r"MLflow   page not logged: MLflow at http://\*\*\*@127.0.0.1:9 does not answer", said)
    page = (checkout / "report.html").read_text(encoding="utf-8")
    assert "does not answer" in page
    assert "secret" not in page + said
    assert "44.1" in page


def test_a_generator_that_was_not_registered_says_so(checkout: Path) -> None:
    (checkout / "artifacts" / "evaluate" / "metrics.json").write_text(json.dumps(METRICS | {"fid_other": 1.0}))
    report = report_of(checkout)
    assert report.registered is None
    assert any("no version of 'ganpipe-mnist'" in item.text for item in report.missing)


# --- drawing


def test_axes_have_round_numbers_inside_the_data() -> None:
    scale = svg.Scale.over([0.0, 120_000.0], 0, 100)
    assert scale.ticks(4) == [0.0, 20000.0, 40000.0, 60000.0, 80000.0, 100000.0, 120000.0]
    assert [svg.compact(value) for value in (0, 950, 1500, 40_000, 1.2e6, 3e-7, 0.0005, -2.5)] == [
        "0", "950", "1500", "40k", "1.2M", "3e-7", "0.0005", "-2.5",
    ]  # fmt: skip
    assert svg.Scale.over([5.0, 5.0], 0, 100)(5.0) == pytest.approx(50)


def test_numbers_over_decades_get_a_logarithmic_axis() -> None:
    scale = svg.Scale.over([1e-4, 1e-1], 0, 100)
    assert scale.log
    assert scale(1e-4) < 5 < 95 < scale(1e-1)
    assert set(scale.ticks(5)) >= {1e-4, 1e-3, 1e-2, 1e-1}
    assert not svg.Scale.over([-1.0, 1000.0], 0, 100).log
    assert len(svg.Scale.over([0.0002, 0.0008], 0, 100, log=True).ticks(4)) >= 3


def test_a_long_curve_is_thinned_but_keeps_its_ends_and_spikes() -> None:
    points = [(float(at), 1.0) for at in range(100_000)]
    points[54_321] = (54_321.0, 99.0)
    kept = svg.thinned(points)
    assert len(kept) <= 402
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert points[54_321] in kept
    assert kept == sorted(kept)


def test_the_graph_is_drawn_without_edges_that_others_imply() -> None:
    upstream = {"a": (), "b": ("a",), "c": ("a", "b"), "d": ("a", "c"), "e": ("a",), "f": ("d", "e")}
    edges = dag.without_implied_edges(upstream)
    assert edges == {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["a"], "f": ["d", "e"]}
    layers, ways = dag.layers_of(edges)
    assert [sorted(name for name in layer if ">" not in name) for layer in layers] == [
        ["a"],
        ["b", "e"],
        ["c"],
        ["d"],
        ["f"],
    ]
    assert len(ways["e", "f"]) == 4  # a place of its own in the layers of c and d
    stages = [Stage(name, "", above, "up to date") for name, above in upstream.items()]
    for vertical in (False, True):
        drawn = str(dag.draw(stages, vertical))
        boxes = {(x, y) for x, y in re.findall(r'class="box" x="([\d.]+)" y="([\d.]+)"', drawn)}
        assert len(boxes) == 6
        assert drawn.count('class="edge"') == 6


def test_text_in_a_drawing_is_escaped() -> None:
    drawn = [
        charts.bars([(HOSTILE, 1.0)], HOSTILE),
        charts.line_chart([Curve(HOSTILE, [(0.0, 1.0), (1.0, 2.0)])], HOSTILE, HOSTILE),
        charts.scatter([charts.Dot(0.0, 1.0, HOSTILE)], HOSTILE, HOSTILE),
        dag.draw([Stage(HOSTILE, HOSTILE, (), "changed")]),
    ]
    for drawing in drawn:
        assert "<script" not in drawing
        assert "<img" not in drawing
        assert '"hacked' not in drawing


def test_a_browser_that_is_missing_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    from browser import require_browser

    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser here"):
        require_browser()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no browser here"):
        require_browser()
