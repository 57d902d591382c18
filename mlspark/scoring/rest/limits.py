"""What a server takes at most, and what is said of more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlspark.contracts.check_arrow import Broken


@dataclass(frozen=True)
class Limits:
    """What a request may cost."""

    body_bytes: int = 16 * 1024 * 1024
    """Most bytes of a body, counted as they arrive."""
    rows: int = 10_000
    """Most rows of a request."""
    seconds: float = 30.0
    """Time from a request's headers to its answer, the sending of its body included."""
    waiting_rows: int = 50_000
    """Most rows of all requests that wait for the model; a request beyond them is sent away at once."""


@dataclass(eq=False)
class Refused(Exception):
    """A request that gets no prediction."""

    status: int
    """HTTP status."""
    message: str
    """What is wrong, and what to do."""
    broken: Sequence[Broken] = ()
    """Rules of the contract that rows break."""
    headers: Mapping[str, str] = field(default_factory=dict)
