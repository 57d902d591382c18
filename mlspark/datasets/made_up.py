"""What data that is made up, broken parts included, has in common. Runs anywhere."""

from dataclasses import dataclass

from mlspark.errors import ConfigError


@dataclass(frozen=True)
class Written:
    """What was written to learn from and to test with: rows, or pictures."""

    num_train: int
    num_test: int
    num_bad: int


def bad_of_train(num_train: int, num_test: int, num_bad: int, seed: int, *, what: str) -> int:
    """Return how many of the broken ones are among those to learn from: in proportion.

    Args:
        num_train: how many to learn from, broken ones included.
        num_test: how many to test with, broken ones included.
        num_bad: broken ones of both.
        seed: of what is made up.
        what: what they are called, for the error: "rows".

    Raises:
        ConfigError: more broken ones than there are, or a number below 0.
    """
    if min(num_train, num_test, num_bad, seed) < 0 or num_bad > num_train + num_test:
        raise ConfigError(
            f"num_train={num_train}, num_test={num_test}, bad_{what}={num_bad}, seed={seed}: "
            f"expected no number below 0 and no more bad {what} than {what}"
        )
    return round(num_bad * num_train / max(num_train + num_test, 1))
