"""The version. The build reads it without importing TensorFlow."""

__version__ = "0.2.0.dev0"
