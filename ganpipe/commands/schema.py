"""schema: writes the JSON schema of params.yaml, which editors use for completion and checks."""

from __future__ import annotations

from pathlib import Path

from ..params import schema
from ..stages.common import require_no_arguments
from . import output

SCHEMA = Path("params.schema.json")


def main(argv: list[str]) -> int:
    require_no_arguments(argv, "schema", __doc__)
    output.write(SCHEMA, schema().encode())
    print(f"{SCHEMA}: written; params.yaml names it in its first line")
    return 0
