"""The flow on small real DVC repositories: what a person sees of success, rest, retries, time limits and failure."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.settings import get_current_settings

from ganpipe import environment, processes
from pipelines import report
from pipelines.__main__ import stale
from pipelines.flow import pipeline
from pipelines.stages import StageFailed, error_in_output

pytestmark = pytest.mark.usefixtures("prefect_server")

TWO = """
stages:
  first:
    cmd: PYTHON work.py first
    deps: [work.py]
    outs: [first.txt]
  second:
    cmd: PYTHON work.py second
    deps: [first.txt]
    metrics: [second.json: {cache: false}]
"""
WORK = """
import json, pathlib, sys
if sys.argv[1] == "first":
    pathlib.Path("first.txt").write_text("first")
else:
    pathlib.Path("second.json").write_text(json.dumps({"score": {"fid": 12.5}}))
"""


ROOT = Path(__file__).parents[2]
FAILED = "ERROR: failed to reproduce 'a': failed to run: python a.py"


def _states(flow_run_id) -> dict[str, str]:
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id])))
    return {run.name: run.state_name or "" for run in runs}


def _report(flow_run_id) -> str:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        )
    (text,) = [str(artifact.data) for artifact in found if artifact.key == "pipeline-report"]
    return text


def _failure(state) -> str:
    with pytest.raises(StageFailed) as caught:
        state.result()
    return str(caught.value)


def test_a_run_then_a_rest_then_only_what_changed(make_repo):
    root = make_repo(TWO, work__py=WORK)
    assert stale(root, []) == ["first", "second"]

    state = pipeline(place="checkout", return_state=True)
    assert state.is_completed()
    assert (root / "first.txt").read_text() == "first"
    assert set(report.read_seconds(root / environment.STAGE_SECONDS)) == {"first", "second"}
    assert _states(state.state_details.flow_run_id) == {"first": "Completed", "second": "Completed"}
    assert "| second.json | score.fid | 12.5 |" in _report(state.state_details.flow_run_id)
    assert stale(root, []) == []

    state = pipeline(place="checkout", return_state=True)
    assert _states(state.state_details.flow_run_id) == {"first": "Cached", "second": "Cached"}

    (root / "work.py").write_text(WORK + "# another comment\n")
    assert stale(root, []) == ["first"]
    state = pipeline(place="checkout", return_state=True)
    # first.txt came out as before, so nothing behind it runs again.
    assert _states(state.state_details.flow_run_id) == {"first": "Completed", "second": "Cached"}


def test_a_failed_stage_ends_the_flow_with_its_own_words(make_repo):
    root = make_repo(
        TWO, work__py="import sys\nprint('note')\nsys.exit('error: data.limit: got -3; expected 1 or more')\n"
    )
    state = pipeline(place="checkout", return_state=True)
    message = _failure(state)
    first, *rest = message.splitlines()
    assert first == "stage first: data.limit: got -3; expected 1 or more"
    assert rest[0] == "not run, since they need it: second"
    assert rest[1].startswith("next: ")
    assert "Traceback" not in message
    assert _states(state.state_details.flow_run_id)["first"] == "Failed"
    assert not (root / "second.json").exists()


def test_a_retry_that_succeeds(make_repo):
    root = make_repo(
        """
        stages:
          flaky:
            cmd: PYTHON flaky.py
            outs: [done.txt]
            meta: {retries: 1, retry_delay_seconds: 0}
        """,
        flaky__py="""
        import pathlib, sys
        tries = pathlib.Path("tries.txt")
        tries.write_text((tries.read_text() if tries.exists() else "") + "x")
        if tries.read_text() == "x":
            sys.exit("error: the network is away")
        pathlib.Path("done.txt").write_text("done")
        """,
    )
    assert pipeline(place="checkout", return_state=True).is_completed()
    assert (root / "tries.txt").read_text() == "xx"


def test_what_a_person_has_to_mend_is_not_tried_again(make_repo):
    root = make_repo(
        """
        stages:
          picky:
            cmd: PYTHON picky.py
            outs: [done.txt]
            meta: {retries: 3, retry_delay_seconds: 0}
        """,
        picky__py="""
        import pathlib, sys
        with open("tries.txt", "a") as tries:
            tries.write("x")
        print("error: data.limit: got -3; expected 1 or more")
        sys.exit(2)
        """,
    )
    assert "data.limit: got -3" in _failure(pipeline(place="checkout", return_state=True))
    assert (root / "tries.txt").read_text() == "x"


def test_a_timeout_ends_the_whole_tree(make_repo):
    root = make_repo(
        """
        stages:
          slow:
            cmd: PYTHON slow.py
            outs: [done.txt]
            meta: {timeout_seconds: 4}
        """,
        # The stage and its child ignore the polite signal.
        slow__py="""
        import pathlib, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
        process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
        pathlib.Path("child.pid").write_text(str(process.pid))
        time.sleep(300)
        """,
    )
    began = time.monotonic()
    message = _failure(pipeline(place="checkout", return_state=True))
    assert message.startswith("stage slow: not done within its timeout_seconds, 4")
    assert time.monotonic() - began < 40
    child = int((root / "child.pid").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_stages_that_do_not_need_each_other_run_side_by_side(make_repo):
    # Each waits for the other's mark: one after the other they would both give up.
    make_repo(
        """
        stages:
          both:
            foreach: [left, right]
            do:
              cmd: PYTHON meet.py ${item}
              deps: [meet.py]
              outs: ["${item}.txt"]
        """,
        meet__py="""
        import pathlib, sys, time
        me, other = sys.argv[1], {"left": "right", "right": "left"}[sys.argv[1]]
        pathlib.Path(me + ".here").touch()
        deadline = time.monotonic() + 60
        while not pathlib.Path(other + ".here").exists():
            if time.monotonic() > deadline:
                sys.exit("error: nobody came")
            time.sleep(0.05)
        pathlib.Path(me + ".txt").write_text("met")
        """,
    )
    assert pipeline(place="checkout", return_state=True).is_completed()


@pytest.mark.slow
def test_ctrl_c_ends_the_stage_and_says_what_goes_on(make_repo, tmp_path):
    root = make_repo(TWO, work__py="import pathlib, time\npathlib.Path('began').touch()\ntime.sleep(300)\n")
    log = tmp_path / "log"
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": str(get_current_settings().api.url)}
    with log.open("wb") as file:
        code = "from pipelines.flow import pipeline; pipeline(place='checkout')"
        # A shell that starts a command in the background has it ignore SIGINT, and so do its children.
        run = subprocess.Popen(
            [sys.executable, "-c", f"import signal; signal.signal(2, signal.default_int_handler); {code}"],
            cwd=root, env=variables, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (root / "began").exists():
            assert run.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=60) != 0
    finally:
        processes.end_tree(run.pid)
    said = log.read_text()
    assert (
        "ended before its time; what is done is kept. The same command again goes on from the last checkpoint" in said
    )
    assert "flow-run retry" not in said
    assert "printed nothing" not in said
    assert not processes.having_argument(str(root))


def test_dvc_s_own_error_is_the_stage_s(make_repo):
    """What DVC says about a stage whose command did well is not hidden behind the command's last line."""
    root = make_repo(
        """
        stages:
          absent:
            cmd: echo fine
            outs: [done.txt]
          uncached:
            cmd: echo fine; echo done > kept.txt
            outs: [kept.txt]
          killed:
            cmd: echo fine; kill -9 $$
            outs: [never.txt]
        """
    )
    (root / ".dvc" / "cache").write_text("in the way")
    message = _failure(pipeline(place="checkout", return_state=True))
    assert "stage absent: output 'done.txt' does not exist" in message
    assert re.search(r"stage uncached: \[Errno \d+\] .*\.dvc/cache", message)
    assert "stage killed: fine (it was ended by SIGKILL, as the system does when memory runs out,)" in message


def test_only_the_targets_run(make_repo):
    root = make_repo(TWO, work__py=WORK)
    assert pipeline(targets=["first"], place="checkout", return_state=True).is_completed()
    assert (root / "first.txt").exists()
    assert not (root / "second.json").exists()


def test_pictures_among_the_plots_are_in_the_report(make_repo):
    from PIL import Image

    root = make_repo(
        TWO + "plots: [grid.png, curves.csv: {x: step}, absent.png, samples, figures]\n",
        work__py=WORK,
        curves__csv="step,loss\n1,2\n",
    )
    Image.new("RGB", (8, 8), (200, 30, 30)).save(Path(root / "grid.png"))
    (root / "samples").mkdir()
    for name in ("000100.png", "000200.png"):
        Image.new("L", (8, 8)).save(root / "samples" / name)
    (root / "figures").mkdir()
    for name in ("nearest.png", "samples.png", "notes.txt"):
        Image.new("L", (8, 8)).save(root / "figures" / name, "PNG")
    text = report.markdown(root, [("first", "Completed")], {"first": 1.5})
    assert "| first | Completed | 1.5 |" in text
    assert "**grid.png**\n\n![grid.png](data:image/png;base64,iVBOR" in text
    assert "samples/000200.png" in text
    assert "samples/000100.png" not in text  # of pictures that follow each other in time, the last
    assert "figures/nearest.png" in text
    assert "figures/samples.png" in text
    assert "notes.txt" not in text
    assert "curves.csv" not in text
    assert "absent.png" not in text


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (["Running stage 'a':", "> python a.py", "error: no x", f"{FAILED}, exited with 2"], "no x"),
        (["Traceback", "ValueError: boom", f"{FAILED}, exited with 1"], "ValueError: boom (it ended with exit code 1)"),
        (["> python a.py", f"{FAILED}, exited with 1"], "it ended with exit code 1 and printed nothing"),
        (["> python a.py", f"{FAILED}, exited with 143"], "it was ended by SIGTERM and printed nothing"),
        (["> one", "half", "ERROR: failed to reproduce 'a': failed to run: one", "two, exited with 3"],
         "half (it ended with exit code 3)"),
        (["error: old", "ERROR: failed to reproduce 'a': 'x' is busy, by:", "  (PID 7): dvc repro"],
         "'x' is busy, by: (PID 7): dvc repro"),
        (["ERROR: output 'x' is not an output"], "output 'x' is not an output"),
        ([], "it failed and printed nothing"),
    ],
)  # fmt: skip
def test_the_line_that_says_what_went_wrong(tail, expected):
    assert error_in_output(tail) == expected
