"""Prefect: the stage graph out of dvc.yaml, run as a flow. Names no stage."""

from ganpipe import environment

# Before Prefect is imported, wherever the flows are imported from.
environment.apply_defaults()
