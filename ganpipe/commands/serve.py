"""serve: serves a page that shows samples of the champion, and a small JSON API."""

from __future__ import annotations

import argparse
import re

from .. import environment
from ..params import load_params
from ..registry.registration import CHAMPION
from ..serving.server import ServeSettings, run
from ..tracking.runs import Tracker


def _parser() -> argparse.ArgumentParser:
    own = ServeSettings(model="")
    parser = argparse.ArgumentParser(
        prog="ganpipe serve",
        description="Serve a page with samples of a registered generator, and a JSON API (/api/model, /api/images, "
        "/api/translate, /healthz, /readyz). It follows the alias: a new champion is shown without a restart.",
        epilog="Whoever may write to the registry decides which code this command runs. There is no login: to serve "
        "other machines, put it behind a proxy with a login.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    model_help = (
        "models:/NAME@ALIAS, or models:/NAME/VERSION for a fixed version; or only the @ALIAS or the VERSION, then of "
        "register.model_name"
    )
    parser.add_argument("--model", default=f"@{CHAMPION}", help=model_help)
    parser.add_argument("--host", default=own.host, help="address to listen on")
    parser.add_argument("--port", type=int, default=own.port, help="port; 0 for any free port")
    parser.add_argument(
        "--allow-host",
        dest="hosts",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name to answer to (can be repeated); on a loopback address, other names are refused",
    )
    parser.add_argument("--device", default=own.device, help="cpu, cuda, …; auto: a GPU if there is one")
    parser.add_argument(
        "--poll-seconds", type=float, default=own.poll_seconds, help="time between two requests to MLflow"
    )
    parser.add_argument("--max-images", type=int, default=own.max_images, help="images that a request may ask for")
    parser.add_argument("--rate", type=float, default=own.rate, help="images per second that a client may ask for")
    parser.add_argument("--burst", type=int, default=own.burst, help="images at once that a client may ask for")
    parser.add_argument("--queue", type=int, default=own.queue, help="images that may wait; requests beyond get 503")
    parser.add_argument(
        "--max-upload-bytes", type=int, default=own.max_upload_bytes, help="size of a picture that a client sends"
    )
    parser.add_argument(
        "--max-upload-pixels",
        type=int,
        default=own.max_upload_pixels,
        help="width times height of such a picture, checked before it is decoded",
    )
    parser.add_argument(
        "--grace-seconds", type=int, default=own.grace_seconds, help="time for the requests under way at SIGTERM"
    )
    return parser


def address_of(asked: str) -> str:
    """The model's whole address: an alias or a number alone is one of `register.model_name`."""
    if re.fullmatch(r"@[^/@:]+", asked):
        return f"models:/{load_params().register_.model_name}{asked}"
    if asked.isdecimal():
        return f"models:/{load_params().register_.model_name}/{asked}"
    return asked


def main(argv: list[str]) -> int:
    options = vars(_parser().parse_args(argv))
    options["model"] = address_of(options["model"])
    run(ServeSettings(**options), Tracker.at(environment.home(), "serve"))
    return 0
