"""Real servers on this machine's loopback interface, to try mlspark against: for tests and for `make cluster`.

Each module's `serve()` is a context manager; nothing outlives it, nor the process that entered it.
"""
