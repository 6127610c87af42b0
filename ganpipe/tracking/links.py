"""Addresses of MLflow's pages of runs and model versions."""

from __future__ import annotations

from urllib.parse import quote

from .. import environment, services
from ..redaction import without_user_info
from .runs import Tracker


def run_page(tracker: Tracker, run_id: str, experiment_id: str) -> str:
    """URL of a run's page; if MLflow's pages are not served, a text that names the run and the database. MLflow is not
    asked."""
    return _page(tracker, f"experiments/{experiment_id}/runs/{run_id}", f"run {run_id}")


def version_page(tracker: Tracker, name: str, version: int) -> str:
    """URL of a model version's page; if MLflow's pages are not served, a text with its `models:/` URI and the
    database."""
    return _page(tracker, f"models/{quote(name, safe='')}/versions/{version}", f"models:/{name}/{version}")


def _page(tracker: Tracker, path: str, words: str) -> str:
    if tracker.uri.startswith(("http://", "https://")):
        return f"{without_user_info(tracker.uri).rstrip('/')}/#/{path}"
    page = services.running("mlflow", environment.home())
    return f"{page.url.rstrip('/')}/#/{path}" if page and page.url.startswith("http") else f"{words} in {tracker.uri}"
