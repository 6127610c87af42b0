"""One thin main function per stage of dvc.yaml, called as `ganpipe <stage>` in the folder that holds params.yaml."""
