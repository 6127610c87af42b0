"""data: what ingest found in the images, and what a person should know of them before a long training."""

from __future__ import annotations

import argparse
import json

from ..data.ingest.data_report import text
from ..data.shards.manifest import read_manifest
from ..stages.common import DATA_PAGE, DATA_REPORT, SHARDS, read_json


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="ganpipe data", description=__doc__)
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    options = parser.parse_args(argv)
    found = read_json(DATA_REPORT, made_by="ingest")
    if options.json:
        print(json.dumps(found, indent=2, sort_keys=True))
        return 0
    print("\n".join(text(found, read_manifest(SHARDS))))
    print(f"{DATA_PAGE}: the same with pictures")
    return 0
