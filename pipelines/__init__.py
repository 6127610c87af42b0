"""Prefect: the stage graph out of dvc.yaml, run as a flow. Names no stage."""
