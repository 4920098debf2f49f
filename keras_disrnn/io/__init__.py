"""Models in files: Keras files, SavedModels, the authors' parameters."""
