"""Averages, curves and checkpoints."""

from __future__ import annotations

import math
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_parts import largest_difference, make_loop, weights_of

from ganpipe.errors import GanpipeError, UnavailableError
from ganpipe.evaluation.sampling import sample_images
from ganpipe.gans.base import Batch, Gan, Progress
from ganpipe.gans.draws import SeededDraws
from ganpipe.training.distributed import World
from ganpipe.training.ema import Ema
from ganpipe.training.feed import Prefetcher
from ganpipe.training.loop import Loop
from ganpipe.training.observers import Checkpoints, Log, SampleGrids, StopOnRequest, is_due, throttled
from ganpipe.training.state import CheckpointStore, Curves, Diverged, Stopped, TrainingState


def test_the_average_moves_half_way_in_a_half_life() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    ema = Ema({"m": module}, half_life=1000, ramp_up=0, begins={})
    nn.init.ones_(module.weight)
    for _ in range(10):
        ema.update(100, images_seen=10**9)
    assert float(ema.averages["m.weight"]) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gan", "wgan_gp"])
def test_compiled_networks_train_alike(name: str) -> None:
    config = {"architecture": "convolutional", "critic_width": 8, "generator_width": 8} if name == "wgan_gp" else {}
    loops = {flag: make_loop(name, settings={"compile": flag}, **config) for flag in (False, True)}
    for loop in loops.values():
        loop.state.configure_torch()
        for _ in range(3):
            loop.step()
        with loop.state.averaged() as gan:
            assert gan.sample(Batch(5, SeededDraws(range(5)), dtype=torch.float64), loop.state.progress).shape[0] == 5
    assert largest_difference(weights_of(loops[True]), weights_of(make_loop(name, **config))) > 1e-4, "no training"
    assert largest_difference(weights_of(loops[True]), weights_of(loops[False])) < 1e-9
    compiled = {
        player: all(module._compiled_call_impl is not None for module in about.modules)
        for player, about in loops[True].state.players.items()
    }
    # A gradient penalty differentiates the convolutional critic twice.
    assert compiled == ({"generator": True, "critic": False} if name == "wgan_gp" else dict.fromkeys(compiled, True))


def test_tf32_is_refused_where_it_does_not_exist() -> None:
    with pytest.raises(GanpipeError, match=r"train\.precision: tf32 is for GPUs .* not for cpu; take fp32"):
        make_loop("gan", settings={"precision": "tf32"}).state.configure_torch()


_ALLOCATING = """
import ctypes, sys, torch
from ganpipe.training.allocator import keep_freed_memory
class Info(ctypes.Structure):  # mallinfo2(3)
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info
if sys.argv[1] == "keep":
    keep_freed_memory()
before = mallinfo2().arena
tensor = torch.empty(2**24)  # 64 MiB, more than glibc's heap gives by default
mapped = mallinfo2().hblkhd
del tensor
print(mapped >= 2**26, mallinfo2().arena - before >= 2**25)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is set")
@pytest.mark.parametrize(("mode", "mapped", "kept"), [("default", True, False), ("keep", False, True)])
def test_memory_that_is_freed_is_kept_for_the_next_step(mode: str, mapped: bool, kept: bool) -> None:
    done = subprocess.run([sys.executable, "-c", _ALLOCATING, mode], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [str(mapped), str(kept)]


def test_the_next_batch_is_fetched_ahead() -> None:
    fetched: list[tuple[int, int]] = []

    def feed(start: int, stop: int) -> dict[str, torch.Tensor]:
        fetched.append((start, stop))
        return {"image": torch.arange(start, stop)}

    with ThreadPoolExecutor(1) as thread:
        ahead = Prefetcher(feed, 16, thread, None)
        for start in (0, 16, 32, 160, 176):  # after a jump, as when a training goes on elsewhere
            assert torch.equal(ahead(start + 4, start + 8)["image"], torch.arange(start + 4, start + 8))
    assert fetched == [(start + 4, start + 8) for start in (0, 16, 32, 48, 160, 176, 192)]


def test_no_half_life_is_no_average() -> None:
    module = nn.Linear(1, 1)
    ema = Ema({"m": module}, half_life=0, ramp_up=0.05, begins={})
    nn.init.constant_(module.weight, 7)
    ema.update(1, images_seen=1)
    assert float(ema.averages["m.weight"]) == 7


def test_while_training_is_young_the_average_follows_faster() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    young, old = (Ema({"m": module}, half_life=10_000, ramp_up=ramp_up, begins={}) for ramp_up in (0.05, 0))
    nn.init.ones_(module.weight)
    for ema in (young, old):
        ema.update(100, images_seen=1000)
    assert float(young.averages["m.weight"]) > 0.7 > 0.1 > float(old.averages["m.weight"])


def test_an_average_holds_nothing_of_the_weights_before_its_module_learns() -> None:
    modules = {name: nn.Linear(1, 1, bias=False) for name in ("early", "late")}
    ema = Ema(modules, half_life=1000, ramp_up=0.1, begins={"late": 5000})
    for images_seen in (4000, 5000, 6000):
        for module in modules.values():
            nn.init.constant_(module.weight, images_seen)
        ema.update(1000, images_seen)
        if images_seen == 5000:
            assert ema.averages["late.weight"].item() == 5000 > ema.averages["early.weight"].item() > 4000
    # 1,000 images of its own: a half-life of 100, so that ten half-lives have passed.
    assert ema.averages["late.weight"].item() == pytest.approx(6000 - 1000 / 2**10)


def test_the_average_is_applied_for_a_while_only() -> None:
    loop = make_loop("dcgan")
    for _ in range(3):
        loop.step()
    state = loop.state
    live = {name: value.clone() for name, value in state.gan.state_dict().items()}
    with state.averaged() as gan:
        assert not gan.training
        for name, average in state.ema.averages.items():
            assert torch.equal(gan.state_dict()[name], average)
    assert state.gan.training
    assert all(torch.equal(value, live[name]) for name, value in state.gan.state_dict().items())
    assert any(not torch.equal(average, live[name]) for name, average in state.ema.averages.items())


def test_generator_state_is_what_sampling_needs_and_no_more() -> None:
    state = make_loop("dcgan").state
    found = state.generator_state()
    assert {name.split(".")[0] for name in found} == {"generator"}
    assert any(name.endswith("running_var") for name in found), "batch norm's statistics are missing"


def test_a_row_is_the_mean_over_its_window() -> None:
    curves = Curves(every=100)
    for value in (1.0, 2.0, 6.0):
        curves.add({"loss": torch.tensor(value)})
    assert curves.end_window(Progress(100, 1000, 3)) == {"loss": 3.0}
    curves.add({"loss": torch.tensor(5.0), "penalty": torch.tensor(2.0)})
    curves.end_window(Progress(200, 1000, 4))
    assert curves.rows == [
        {"step": 3, "images_seen": 100, "loss": 3.0},
        {"step": 4, "images_seen": 200, "loss": 5.0, "penalty": 2.0},
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_training_that_diverged_says_so(value: float) -> None:
    curves = Curves(every=100)
    curves.add({"generator_adversarial": torch.tensor(value)})
    with pytest.raises(
        Diverged, match="generator_adversarial is (nan|inf) after 6,400 images; lower the learning rates"
    ):
        curves.end_window(Progress(6400, 10_000))


def test_a_window_that_a_checkpoint_cut_is_finished_after_it() -> None:
    straight, cut = Curves(100), Curves(100)
    for curves in (straight, cut):
        curves.add({"loss": torch.tensor(1.0)})
    resumed = Curves(100)
    resumed.load_state_dict(cut.state_dict())
    for curves in (straight, resumed):
        curves.add({"loss": torch.tensor(2.0)})
        curves.end_window(Progress(100, 1000, 2))
    assert resumed.rows == straight.rows


@pytest.mark.parametrize(
    ("before", "now", "due"), [(0, 64, False), (64, 128, True), (100, 200, True), (128, 192, False), (960, 1024, True)]
)
def test_what_is_done_every_hundred_images(before: int, now: int, due: bool) -> None:
    assert is_due(100, Progress(before, 1000), Progress(now, 1000)) is due


def state_at(loop_state: TrainingState, images_seen: int) -> TrainingState:
    loop_state.progress = Progress(images_seen, 10**6, images_seen // 16)
    return loop_state


@pytest.mark.parametrize("name", ["checkpoints", "it's [x] #1 *?"])
def test_the_last_checkpoints_and_the_best_are_kept(name: str, tmp_path: Path) -> None:
    state = make_loop("gan").state
    store = CheckpointStore(str(tmp_path / name), keep=2)
    assert store.list() == []
    for images_seen, score in ((100, 9.0), (200, 3.0), (300, 5.0), (400, 4.0), (500, 8.0)):
        state.scores[images_seen] = score
        store.save(state_at(state, images_seen))
    assert store.list() == [200, 400, 500]
    assert store.best(state.scores) == 200
    assert store.load(500)["scores"] == state.scores
    assert {path.name for path in (tmp_path / name).iterdir()} == {
        f"checkpoint-{images_seen:012d}.pt" for images_seen in (200, 400, 500)
    }, "something was left behind"


def test_a_checkpoint_that_was_not_finished_is_not_seen(tmp_path: Path) -> None:
    state = make_loop("gan").state
    store = CheckpointStore(str(tmp_path), keep=2)
    store.save(state_at(state, 100))
    (tmp_path / f"checkpoint-{200:012d}.pt.partial").write_bytes(b"half")
    assert store.list() == [100]


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path), keep=2)
    store.save(state_at(make_loop("gan").state, 100))
    path = tmp_path / f"checkpoint-{100:012d}.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(Exception, match=r"checkpoint-000000000100.pt: cannot be read as a checkpoint"):
        store.load(100)


def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_it_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, state = CheckpointStore(str(tmp_path), keep=1), make_loop("gan").state
    assert store.newest() == 0
    for images_seen in (100, 200):
        CheckpointStore(str(tmp_path), keep=2).save(state_at(state, images_seen))
    path = tmp_path / f"checkpoint-{200:012d}.pt"
    path.write_bytes(b"")  # as after a power failure
    assert store.newest() == 100
    assert f"{path}: cannot be read as a checkpoint" in capsys.readouterr().out
    assert store.list() == [100], "a damaged one would be kept in the place of a whole one"
    store.save(state_at(state, 200))
    assert store.newest() == 200


def test_a_file_that_cannot_be_read_now_is_not_taken_for_damaged(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path), keep=1)
    (tmp_path / f"checkpoint-{100:012d}.pt").mkdir()  # reading it is an error of the storage
    with pytest.raises(UnavailableError, match="checkpoint-000000000100.pt: cannot be read: "):
        store.newest()
    assert store.list() == [100]


def test_one_process_at_a_time_writes_and_leaves_no_half_file(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path), keep=1)
    half = tmp_path / f"checkpoint-{100:012d}.pt.partial"
    half.write_bytes(b"half")
    with store.locked():
        assert not half.exists()
        with (
            pytest.raises(UnavailableError, match="another process has been writing checkpoints here"),
            ThreadPoolExecutor(1) as other,
        ):
            other.submit(_hold, store).result()
    _hold(store)


def _hold(store: CheckpointStore) -> None:
    with store.locked(wait_seconds=0.1):
        pass


def test_a_training_that_is_asked_to_stop_ends_at_a_checkpoint_and_goes_on_the_same(tmp_path: Path) -> None:
    settings = {"num_images": 320, "log_every": 48}

    def run(folder: Path, ask_at: int | None) -> Loop:
        loop, store = make_loop("gan", settings=settings), CheckpointStore(str(folder), keep=2)
        store.clear_stop_request()
        if newest := store.newest():
            loop.state.load_state_dict(store.load(newest))

        def ask(state: TrainingState, before: Progress, metrics: object) -> None:
            if state.progress.images_seen == ask_at:
                store.request_stop()

        checkpoints = Checkpoints(World(), 160, store, lambda gan, progress: 1 / progress.images_seen)
        loop.run([Log(0, None, "gan"), ask, checkpoints, StopOnRequest(World(), store, checkpoints, seconds=0)])
        return loop

    straight = run(tmp_path / "straight", None)
    with pytest.raises(Stopped, match="stopped after 208 images"):
        run(tmp_path / "stopped", 208)
    assert CheckpointStore(str(tmp_path / "stopped"), keep=2).list() == [160, 208]
    resumed = run(tmp_path / "stopped", None)
    assert largest_difference(weights_of(straight), weights_of(resumed)) == 0
    assert resumed.state.curves.rows == straight.state.curves.rows
    assert resumed.state.scores == straight.state.scores == {160: 1 / 160, 320: 1 / 320}


def test_the_best_checkpoint_of_a_staged_training_samples_at_its_own_stage(tmp_path: Path) -> None:
    """As `select: best` opens it: an earlier checkpoint of ProGAN is of a smaller size."""
    settings, store = {"num_images": 320, "precision": "fp32"}, CheckpointStore(str(tmp_path), keep=1)
    loop = make_loop("progan", settings=settings, growing=0.8)
    seen: dict[int, tuple[int, np.ndarray]] = {}

    def score(gan: Gan, progress: Progress) -> float:
        seen[progress.images_seen] = gan.stage(progress), sample_images(gan, progress, range(3))
        return abs(progress.images_seen - 192)

    loop.run([Checkpoints(World(), 64, store, score)])
    assert [stage for stage, _ in seen.values()] == [0, 1, 1, 2, 2], "a short training goes through all stages"
    assert store.list() == [192, 320]
    best = store.best(loop.state.scores)
    assert best == 192
    opened = make_loop("progan", settings=settings, growing=0.8).state
    opened.load_state_dict(store.load(best))
    with opened.averaged() as gan:
        assert gan.stage(opened.progress) == 1
        np.testing.assert_array_equal(sample_images(gan, opened.progress, range(3)), seen[192][1])


def test_a_checkpoint_that_holds_code_is_refused(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("code from a checkpoint ran",)

    torch.save({"gan": Attack()}, tmp_path / f"checkpoint-{100:012d}.pt")
    with pytest.raises(Exception, match="cannot be read as a checkpoint"):
        CheckpointStore(str(tmp_path), keep=2).load(100)


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.files: dict[str, bytes] = {}
        self.flushed_at: list[int] = []

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.metrics.append((step, dict(values)))

    def log_bytes(self, content: bytes, name: str) -> None:
        self.files[name] = content

    def flush(self) -> None:
        self.flushed_at.append(len(self.metrics))


def test_observers_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = make_loop("gan", settings={"num_images": 160, "log_every": 64})
    recorder, reports = Recorder(), []
    store = CheckpointStore(str(tmp_path / "checkpoints"), keep=2)
    loop.run(
        [
            Log(0, recorder, "gan", seconds_between_lines=0),
            SampleGrids(str(tmp_path), (2, 5), lambda gan, progress: b"png %d" % progress.step, recorder),
            Checkpoints(
                World(), 80, store, lambda gan, progress: 1000 / progress.images_seen, "score", reports.append, recorder
            ),
        ]
    )
    assert [row["images_seen"] for row in loop.state.curves.rows] == [64, 128, 160]
    assert {"generator_adversarial", "discriminator_adversarial", "score_real", "score_fake"} < set(
        loop.state.curves.rows[0]
    )
    losses = [(step, values) for step, values in recorder.metrics if "images_per_second" in values]
    assert [step for step, _ in losses] == [64, 128, 160]
    assert all(values["images_per_second"] > 0 for _, values in losses)
    assert recorder.files == {
        "samples/0000002.png": b"png 2",
        "samples/0000005.png": b"png 5",
        "samples/0000010.png": b"png 10",
    }
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "0000002.png",
        "0000005.png",
        "0000010.png",
    ]
    assert store.list() == [80, 160]
    assert reports == [{"images_seen": 80.0, "score": 12.5}, {"images_seen": 160.0, "score": 6.25}]
    assert len(recorder.flushed_at) == 2, "what a checkpoint counts as logged was not flushed"
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("gan: 160 of 160 images (100%), ")


def test_a_batch_beyond_what_was_asked_for_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    loop = make_loop("gan", settings={"num_images": 10, "log_every": 64})
    loop.run([Log(0, Recorder(), "gan", seconds_between_lines=0)])
    assert capsys.readouterr().out.startswith("gan: 16 images, 10 asked for (100%), ")


def test_the_time_left_is_calm_where_the_speed_jumps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of 64 images that take 0.1 and 1.5 seconds in turns, as beside a process that comes and goes."""
    log = Log(0, None, "gan", seconds_between_lines=0)
    state, now = make_loop("gan", settings={"num_images": 64_000, "log_every": 64}).state, time.perf_counter()
    for number in range(1, 400):
        now += (0.1, 1.5)[number % 2]
        monkeypatch.setattr(time, "perf_counter", lambda at=now: at)
        before, state.progress = state.progress, Progress(64 * number, 64_000, number)
        log(state, before, {"loss": torch.tensor(1.0)})
    left = [60 * int(found[0]) + int(found[1]) for found in re.findall(r"(\d+):(\d\d) left", capsys.readouterr().out)]
    expected = [0.8 * (1000 - number) for number in range(1, 400)]  # 0.8 seconds per window on average
    for found, wanted in list(zip(left, expected, strict=True))[100:]:
        assert found == pytest.approx(wanted, rel=0.1)


def test_reports_may_be_spared_by_time() -> None:
    reported: list[float] = []
    for seconds, expected in ((1e9, [0.0]), (0.0, [0.0, 1.0, 2.0])):
        reported.clear()
        report = throttled(lambda metrics: reported.append(metrics["images_seen"]), World(), seconds)
        for images_seen in range(3):
            report({"images_seen": float(images_seen)})
        assert reported == expected
