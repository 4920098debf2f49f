"""Models in files: Keras files, SavedModels with model cards, and files of the authors' package."""
