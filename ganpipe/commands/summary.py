"""summary: what the last run made, and where it is."""

from __future__ import annotations

from pathlib import Path

from ..params import load_params
from ..registry.package import digest_of_package
from ..registry.registration import content_digest
from ..registry.tracking import Tracker
from ..registry.versions import CHAMPION, by_alias, find_version
from ..stages.common import EVALUATE, PACKAGE, TRAIN, read_json, require_no_arguments


def main(argv: list[str]) -> int:
    require_no_arguments(argv, "summary")
    settings = load_params().register_
    metrics = read_json(EVALUATE / "metrics.json", made_by="evaluate")
    protocol = read_json(EVALUATE / "protocol.json", made_by="evaluate")
    tracker = Tracker.at(Path.cwd(), settings.experiment)
    tracker.check()
    client = tracker.client()
    content = content_digest(digest_of_package(PACKAGE), metrics, protocol["hash"])
    version = find_version(client, tracker, settings.model_name, content)
    print(f"model    {_model(settings.model_name, version)}")
    if version is not None:
        champion = by_alias(client, tracker, settings.model_name, CHAMPION)
        if champion is not None and champion.version != version.version:
            print(f"         the champion is version {champion.version}")
    reference = protocol["reference"]
    print(
        f"{settings.metric} {metrics[settings.metric]:.2f}  protocol {protocol['hash'][:12]}: "
        f"{protocol['num_samples']:,} samples against {reference['num_real']:,} {reference['split']} images, "
        f"{reference['extractor']} at {reference['resize']} px"
    )
    print(f"samples  {EVALUATE / 'samples.png'}, while training: {TRAIN / 'samples'}/")
    print(f"curves   {TRAIN / 'curves.csv'}: `dvc plots show` draws them")
    return 0


def _model(name: str, version: object) -> str:
    if version is None:
        return f"{name}: not in this registry; `dvc repro --force --single-item register` puts it there"
    aliases = sorted(version.aliases)  # type: ignore[attr-defined]
    shown = " ".join(f"@{alias}" for alias in aliases) or "no alias"
    return f"models:/{name}/{version.version} {shown}"  # type: ignore[attr-defined]
