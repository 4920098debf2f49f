"""The version, apart from the package so that the build can read it without TensorFlow."""

__version__ = "0.1.0"
