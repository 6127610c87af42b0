"""check: everything that can be checked before long work starts."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .. import environment, prefect_api, services, tracked
from ..cpus import usable_cpus
from ..data import sources
from ..data.access.host_cache import host_cache
from ..data.ingest import class_counts
from ..data.sources.base import Description
from ..errors import GanpipeError
from ..evaluation import metrics
from ..evaluation.extractors import load_extractor
from ..gans import load
from ..gans.base import DataSpec
from ..packaging.output_shape import Shape, digest_of_names
from ..params import Params, load_params
from ..registry.gate_forecast import comparison_warning, why_not_comparable
from ..section import nearest
from ..stages.common import require_no_arguments
from ..stages.dvc_store import dvc_stores
from ..stages.jobs import needs_of
from ..stages.shared_storage import require_shared
from ..stages.start import find_weights
from ..stages.storage import require_writable
from ..stages.trainable import require_trainable
from ..stages.tune import earlier_settings
from ..tracking.lineage import require_commit
from ..tracking.runs import Tracker
from ..training import cluster, hosts, job_api
from ..training.search_space import search_space, space_by_player

CHECKPOINT_BYTES = 2**30
"""Disk space for checkpoints and outputs beside the images. A checkpoint of the largest GAN here is below 300 MB."""


def main(argv: list[str]) -> int:
    require_no_arguments(argv, "check", __doc__)
    check_command()
    if service := services.named_in_environment("prefect"):
        prefect_api.check_reachable(service.address)
    params = load_params()
    if params.register_.require_commit:
        require_commit(Path.cwd())
    check_watched_folders(params)
    check_gan_and_data(params)
    check_number_of_images(params)
    check_metrics(params)
    check_writable()
    check_disk(params)
    if params.cluster.storage_path is not None:
        require_writable(params.cluster.storage_path)
    check_resources(params)
    Tracker.at(environment.home(), params.register_.experiment).check()
    check_champion(params)
    print("params.yaml, data source, GAN, resources, disk and MLflow: ready")
    if added := environment.ADDED_FOR_USER:
        exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in added.items())
        print(f"this user has no name or no home to write to: before you type `dvc` or `prefect`, export {exports}")
    return 0


def check_command() -> None:
    """Check that the command `ganpipe`, which the stages of dvc.yaml call, runs. The first line of its file names the
    interpreter by its path, which is wrong after the checkout was moved, and can be too long or have characters that
    such a line does not allow.

    Raises:
        GanpipeError: the message names the file, and says how to make it anew.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = shutil.which("ganpipe", path=path)
    if command is None:
        raise GanpipeError("the stages of dvc.yaml call `ganpipe`, which is not on the PATH; install it: `make venv`")
    try:
        done = subprocess.run([command, "--version"], capture_output=True, text=True, errors="replace", check=False)
        reason = (
            "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        )
    except OSError as error:
        reason = str(error)
    if reason:
        raise GanpipeError(
            f"{command}: the stages of dvc.yaml call it, and it does not run ({reason}); after a move remove .venv and "
            "run `make venv`; if that does not help, move the checkout to a shorter path without quotes and the like"
        )


def check_watched_folders(params: Params) -> None:
    """Check the folders of images that DVC watches for files at which DVC would stop, because DVC does not name them.

    Raises:
        GanpipeError: the message names the file, and says what to do.
    """
    if not (Path(".dvc").is_dir() and Path("dvc.yaml").is_file()):
        return
    found = re.findall(r"\$\{sources\.(\w+)\.(\w+)\}", Path("dvc.yaml").read_text(encoding="utf-8"))
    given = ((params.sources.get(name) or {}).get(key) for name, key in found)
    tracked.require_readable_by_dvc([Path(path).expanduser() for path in given if path], _is_ignored_by_dvc)


def _is_ignored_by_dvc(path: str) -> bool:
    from dvc.repo import Repo

    with Repo(".") as repo:
        return bool(repo.dvcignore.is_ignored_file(path))


def check_gan_and_data(params: Params) -> None:
    """Check that the source exists, that the GAN can train on its data, and that the weights to start from exist.

    Raises:
        GanpipeError: the message says what does not fit.
    """
    source = sources.load(params.data.source)(params.source_settings)
    source.check()
    source.check_against(params.data)
    found = source.describe()
    for line in class_counts.name_warnings(found.classes):
        print(f"warning: {line}", file=sys.stderr)
    spec = data_spec(found, params)
    require_trainable(params, spec)
    find_weights(params, spec, Tracker.at(environment.home(), params.register_.experiment))
    space_by_player(params.tune, params.gan_config.players)
    if params.tune.num_trials:
        search_space(params.gan_config, params.tune)
        earlier_settings(params.tune.start_from)
    workers = {"cluster.num_workers": params.cluster.most_workers}
    workers |= {"tune.workers_per_trial": params.tune.workers_per_trial} if params.tune.num_trials else {}
    for key, number in workers.items():
        if number > params.train.batch_size:
            raise GanpipeError(
                f"{key}: got {number}, more than train.batch_size {params.train.batch_size}; each worker needs an "
                "image of the batch"
            )


def data_spec(found: Description, params: Params) -> DataSpec:
    """What the GAN will know of the dataset, as far as the source knows it before its images are read.

    The fields are in the same order as in a manifest, so that the messages of check and training are the same.
    """
    return DataSpec(dict(sorted(found.specs(params.data).items())), found.main)


def check_number_of_images(params: Params) -> None:
    """Check that there are enough images to measure a generator, if the source knows their number. If it does not, the
    stages check it.

    Raises:
        GanpipeError: the message names the key of params.yaml.
    """
    data, evaluate = params.data, params.evaluate
    found = sources.load(data.source)(params.source_settings).describe()
    has_own_split = getattr(params.source_settings, "splits", "mix") == "keep"
    if evaluate.split == "validation" and data.validation_fraction == 0 and not has_own_split:
        raise GanpipeError(
            "evaluate.split: got 'validation', and data.validation_fraction is 0; raise it, or set evaluate.split to "
            "train"
        )
    number = min((number for number in (data.limit, found.num_images) if number is not None), default=None)
    others = 1 if evaluate.split == "validation" else 0  # one image has to be left for training
    if number is not None and number < evaluate.min_real + others:
        where = f"data.limit: got {number}" if number == data.limit else f"data.source: {data.source} has {number}"
        raise GanpipeError(
            f"{where}, and at least {evaluate.min_real + others} images are needed, {evaluate.min_real} of them in "
            f"the {evaluate.split} split, to measure FID, precision and recall with evaluate.num_neighbours "
            f"{evaluate.num_neighbours}; add images, or lower evaluate.num_neighbours"
        )


def check_metrics(params: Params) -> None:
    """Check that the extractor's weights exist, and that the metrics which the gate needs will be measured.

    Raises:
        GanpipeError: the message names the metric or file.
    """
    load_extractor(params.evaluate)
    found = sources.load(params.data.source)(params.source_settings).describe()
    applying = metrics.applying(load(params.train.gan), params.gan_config, data_spec(found, params))
    measured = [metric.full_name(params.evaluate.extractor) for metric in applying]
    asked = {"register.metric": params.register_.metric}
    asked |= {f"register.conditions.{name}": name for name in params.register_.conditions}
    for key, name in asked.items():
        if name not in measured:
            raise GanpipeError(f"{key}: no metric {name!r} is measured; {nearest(name, measured)}")


def check_writable() -> None:
    """Check that the folders to which stages and DVC write are writable.

    Raises:
        GanpipeError: the message names the folder and the system's reason.
    """
    places = {Path("artifacts"): "the outputs", environment.home() / ".ganpipe": "interrupted work"}
    places[host_cache()] = "this host's cache (GANPIPE_CACHE)"
    for store in dvc_stores(Path.cwd()):
        cache = store.parent.parent
        # In a cache that users share, a folder may belong to another user.
        inner = [cache / "runs", *(path for path in [store, *store.glob("??")] if path.is_dir())]
        places |= dict.fromkeys([cache, *inner], "DVC's cache (`dvc cache dir`)")
        places[Path(".dvc") / "tmp"] = "DVC's locks"
    for folder, what in places.items():
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            raise GanpipeError(
                f"{folder}: {what} cannot be written there: {error.strerror}; give this user the right to, or choose "
                "another place"
            ) from None


def check_champion(params: Params) -> None:
    """Check that the new generator can be compared with the champion; print a warning if it cannot.

    Raises:
        GanpipeError: it cannot be compared, and `register.not_comparable` is refuse.
    """
    settings = params.register_
    found = sources.load(params.data.source)(params.source_settings).describe()
    conditional = bool(load(params.train.gan).given)
    names = digest_of_names(found.classes)
    coming = Shape(params.data.image_size, params.data.channels, len(found.classes), conditional, names)
    why = why_not_comparable(Tracker.at(environment.home(), settings.experiment), settings, coming)
    if why and settings.not_comparable == "refuse":
        raise GanpipeError(comparison_warning(settings, why))
    if why:
        print(f"warning: {comparison_warning(settings, why)}", file=sys.stderr)


def check_disk(params: Params) -> None:
    """Check that there is disk space for shards and decoded images.

    Raises:
        GanpipeError: the message names the folder, and says how much is free and needed.
    """
    found = sources.load(params.data.source)(params.source_settings).describe()
    num_images = min((number for number in (params.data.limit, found.num_images) if number is not None), default=0)
    decoded = num_images * sum(
        math.prod(spec.row_shape) for spec in found.specs(params.data).values() if spec.is_picture
    )
    places = [] if params.data.store is not None else [Path.cwd(), *dvc_stores(Path.cwd())]
    if params.data.read == "cache":
        places.append(host_cache())
    for folder in places:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if free < decoded + CHECKPOINT_BYTES:
            raise GanpipeError(
                f"{folder}: {free / 2**30:.1f} GiB free, about {(decoded + CHECKPOINT_BYTES) / 2**30:.1f} GiB are "
                f"needed for {num_images:,} images and checkpoints; make room, or lower data.limit or data.image_size"
            )


def check_resources(params: Params) -> None:
    """Check that the Ray cluster (if none is running, this machine) has CPUs and GPUs for the workers.

    Raises:
        GanpipeError: the message names the section of params.yaml that asks for too much.
    """
    if params.train.precision == "tf32" and params.cluster.gpus_per_worker == 0:
        raise GanpipeError("train.precision: tf32 is for GPUs, and cluster.gpus_per_worker is 0; take fp32")
    address = services.ray_address(environment.home())
    wanted = [needs_of(params, "train")] + ([needs_of(params, "tune")] if params.tune.num_trials > 0 else [])
    tracking_uri = Tracker.at(environment.home(), params.register_.experiment).uri
    if address is not None and job_api.is_job_server(address):
        job_api.client_of(address)
        require_shared(params.cluster, tracking_uri, [f"the cluster at {address}"])
        return
    if address is not None:
        cluster.connect(address)
        for needs in wanted:
            cluster.require(needs.num_workers, needs.cpus, needs.gpus, params.cluster.wait_seconds, needs.section)
            if others := hosts.others(needs.cpus, needs.gpus):
                require_shared(params.cluster, tracking_uri, others)
        return
    num_cpus = usable_cpus()
    for needs in wanted:
        if needs.num_workers * needs.cpus > num_cpus:
            given = (
                ""
                if num_cpus == os.cpu_count()
                else f", of which this process may use {num_cpus} (CPU affinity, limit of the container)"
            )
            raise GanpipeError(
                f"{needs.section}: asks for {needs.num_workers} workers of {needs.cpus:g} CPUs; this machine has "
                f"{os.cpu_count()}{given}; lower {needs.section}.*, or set RAY_ADDRESS to a cluster"
            )
