"""The model that is registered: a folder with weights, settings, card and the code that it needs.

`package` builds and logs it; `served_model` is the code in it that MLflow runs; `card` what it tells people; `fetching`
copies a registered version's files; `weights` reads its weights and no code; `output_shape` what a version makes;
`class_names` its classes as people name them.
"""
