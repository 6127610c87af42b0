"""The model that is registered: a folder with weights, settings, card and the code that it needs.

`package` builds and logs the folder; `served_model` is the code in it that MLflow runs; `card` writes the model card;
`fetching` copies a registered version's files; `weights` reads its weights and runs none of its code; `output_shape`
describes the images that a version makes; `class_names` finds its classes by the names that people use.
"""
