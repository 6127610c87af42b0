"""One thin main a stage of dvc.yaml, called as `ganpipe <stage>` in the folder that holds params.yaml."""
