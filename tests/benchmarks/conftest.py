"""The tiny source set of the data set tests."""

from tests.datasets.conftest import tiny_sources

__all__ = ["tiny_sources"]
