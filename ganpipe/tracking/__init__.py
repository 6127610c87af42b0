"""Runs in MLflow.

`connection` where MLflow is, and whether it answers; `runs` how a stage finds its run; `run_log` one run, written in
the background; `spool` what MLflow has not taken yet, and `replay` sends it; `read_back` whether the store has what
it was sent; `relocation` addresses of files in a checkout that was moved; `links` MLflow's pages; `lineage` the git
commit, DVC's digests and the environment of a run.
"""
