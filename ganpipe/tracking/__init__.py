"""Runs in MLflow.

`connection` tells where MLflow is and whether it answers; `runs` finds or makes a stage's run; `run_log` writes one run
in the background; `spool` keeps records that MLflow has not taken yet, and `replay` sends them; `read_back` checks
whether the artifact store has what it was sent; `relocation` corrects the addresses of files in a checkout that was
moved; `links` makes addresses of MLflow's pages; `lineage` collects the git commit, DVC's digests and the environment
of a run.
"""
