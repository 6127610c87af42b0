"""ingest: images from a source to WebDataset shards with a manifest, and a picture of some of them."""

from __future__ import annotations

from pathlib import Path

from .. import environment
from ..data import sources
from ..data.ingest.preview import preview
from ..data.ingest.shards import IngestHistory, write_shards
from ..errors import GanpipeError
from ..evaluation import grids
from ..params import load_params
from .common import REAL_IMAGES, SHARDS, require_no_arguments

NOTES = Path(".ganpipe/ingest")
WATCH = "`ganpipe ingest --watch` tells Prefect when the source's images change: `ganpipe ingest --watch --help`."


def main(argv: list[str]) -> int:
    if "--watch" in argv:
        from .watch import main as watch

        return watch(argv)
    require_no_arguments(argv, "ingest", __doc__, WATCH)
    params = load_params()
    source = sources.load(params.data.source)(params.source_settings)
    history = IngestHistory(environment.home() / NOTES, dvc_stores(Path.cwd()))
    manifest = write_shards(params.data, source, SHARDS, history=history)
    REAL_IMAGES.parent.mkdir(parents=True, exist_ok=True)
    REAL_IMAGES.write_bytes(grids.png(grids.grid(*preview(SHARDS, manifest))))
    counts = ", ".join(f"{manifest.num_samples(split):,} {split}" for split in manifest.splits)
    print(f"{SHARDS}: {counts} images of {manifest.image.size} pixels, {', '.join(manifest.fields)}")
    print(f"{REAL_IMAGES}: some of them as they are trained on; look at it before a long training")
    return 0


def dvc_stores(root: Path) -> tuple[Path, ...]:
    """Where DVC keeps files by their MD5. It removes this stage's outputs before the stage runs, but not its copies."""
    if not (root / ".dvc").is_dir():
        return ()
    from dvc.config import Config, ConfigError

    try:
        chosen = Config(dvc_dir=str(root / ".dvc")).get("cache", {}).get("dir")
    except ConfigError as error:
        raise GanpipeError(f"{root / '.dvc' / 'config'}: {error}") from None
    return (Path(chosen or root / ".dvc" / "cache") / "files" / "md5",)
