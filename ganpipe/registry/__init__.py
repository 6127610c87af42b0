"""Tracking, the packaged model, and the gate that decides which generator is the champion.

`settings` params.yaml's section; `tracking` where MLflow is and how a stage finds its run; `runlog` one run, written
in the background; `spool` what MLflow has not taken yet; `relocation` its addresses of files in a checkout that was
moved; `lineage` git, DVC and environment; `package` the directory that is registered; `card` what it tells people;
`served_model` the code in it that MLflow runs; `gate` the decision; `registration` its effects; `versions` what is
registered; `trail` who moved which alias; `promotion` the champion by hand and back; `opening` a package from
anywhere; `comparison` two of them.
"""
