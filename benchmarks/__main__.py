"""`make bench`: measure, write benchmarks/results.json, and the tables of docs/performance.md from it.

python -m benchmarks                    # everything, about 40 minutes on two cores
python -m benchmarks data evaluation    # some of it; the rest of the table stays as it was
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ganpipe.cpus import usable_cpus

from .checkout import ROOT
from .measure import Row

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- table: make bench -->", "<!-- end of table -->"
_VERSIONS = ("torch", "ray", "mlflow", "dvc", "prefect", "webdataset", "torchmetrics", "pillow", "numpy")


def _sections() -> dict[str, Callable[[Path, int], list[Row]]]:
    from .data import data
    from .evaluation import evaluation
    from .limits import limits
    from .memory import memory
    from .sharing import sharing
    from .startup import startup
    from .streaming import streaming
    from .training import training
    from .tuning import tuning

    return {
        "training": training,
        "limits": limits,
        "sharing": sharing,
        "startup": startup,
        "tuning": tuning,
        "data": data,
        "streaming": streaming,
        "evaluation": evaluation,
        "memory": memory,
    }


def machine() -> dict[str, Any]:
    """Where it was measured: processor, cores, versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    wide = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return {
        "processor": f"{names[0] if names else platform.processor()} ({', '.join(wide) or 'no AVX-512'})",
        "cores": usable_cpus(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _VERSIONS},
    }


def commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def measure(name: str, rounds: int) -> None:
    """Measure this section, and write it into results.json."""
    print(f"{name}:", flush=True)
    with tempfile.TemporaryDirectory(prefix="ganpipe-bench-") as folder:
        rows = _sections()[name](Path(folder), rounds)
    for row in rows:
        print(f"  {row.what}: {row.value:.3g} {row.unit}  (goal {row.goal or 'none'})  {row.detail}", flush=True)
    keep(name, f"python -m benchmarks {name} --rounds {rounds}", rows)


def keep(name: str, command: str, rows: list[Row]) -> None:
    """Put a section's rows into results.json, with the machine and the command."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    values = [dataclasses.asdict(row) for row in rows]
    results[name] = {"command": command, "commit": commit(), "machine": machine(), "rows": values}
    RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def table(results: dict[str, Any]) -> str:
    """The page's tables: one a section, with the machine and the command of its rows."""
    parts = []
    for name in [*_sections(), "notes"]:
        if name not in results:
            continue
        section = results[name]
        where, versions = section["machine"], section["machine"]["versions"]
        parts.append(f"\n### {name.capitalize()}\n")
        parts.append("| what | goal | measured | met | from |\n|---|---|---:|---|---|")
        for values in section["rows"]:
            row = Row(**values)
            met = {True: "yes", False: "no", None: ""}[row.met]
            parts.append(f"| {row.what} | {row.goal} | {row.value:.3g} {row.unit} | {met} | {row.detail} |")
        listed = ", ".join(f"{package} {versions[package]}" for package in versions)
        parts.append(
            f"\n`{section['command']}` at {section['commit']}; {where['processor']}, {where['cores']} cores; "
            f"Python {where['python']}, {listed}"
        )
    return "\n".join(parts)


def write() -> None:
    """Put the tables between the page's marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(json.loads(RESULTS.read_text()))}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(_sections())}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each thing that is compared; default 5")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(_sections()):
        parser.error(f"no such section: {', '.join(sorted(unknown))}; expected some of {', '.join(_sections())}")
    # Ray's workers import these modules, too.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    names = options.sections or list(_sections())
    if len(names) == 1:
        measure(names[0], options.rounds)
        write()
        return
    # Each in a process of its own: a training in one changes how its process keeps memory, and so the next one's speed.
    for name in names:
        command = [sys.executable, "-m", "benchmarks", name, "--rounds", str(options.rounds)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
