-- Run once, by the image, when the volume is empty.
CREATE DATABASE mlflow;
CREATE DATABASE prefect;
