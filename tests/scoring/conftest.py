"""The registry of the tests of versions, here too."""

from ..registry.conftest import client, example_uri

__all__ = ["client", "example_uri"]
