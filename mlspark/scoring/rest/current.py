"""Which version answers: the one that an alias names, loaded beside the old one when the alias moves."""

import logging
import threading
from collections.abc import Callable

from mlspark.errors import MlsparkError
from mlspark.registry import versions
from mlspark.scoring.rest.answers import Served
from mlspark.tracking.runs import Client

logger = logging.getLogger(__name__)


class Current:
    """A model's version by number or alias; of an alias, the one that it names now.

    The registry is asked every `poll_seconds` in a thread. A version that cannot be loaded leaves the old one in its place,
    and `problem` says why, until the alias names one that can.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        wanted: int | str,
        *,
        poll_seconds: float = 5.0,
        allow_decoder: bool = False,
        observe_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Load the version.

        Args:
            client: of the registry.
            name: of the registered model.
            wanted: number or alias.
            poll_seconds: between two looks at an alias.
            allow_decoder: see `Predictor`.
            observe_failure: is called when a version could not be loaded, or the registry did not answer.

        Raises:
            RegistryError: there is no such version, or it is damaged.
            TrackingError: the registry does not answer.
        """
        self._client, self._name, self.wanted = client, name, wanted
        self._poll_seconds, self._allow_decoder = poll_seconds, allow_decoder
        self._observe_failure = observe_failure
        self.served = self._load(wanted)
        """The version that answers; another one from one moment to the next."""
        self.problem = ""
        """Why the version that the alias names now does not answer; empty where it does."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Follow the alias from now on; a number does not move."""
        if isinstance(self.wanted, str):
            self._thread = threading.Thread(target=self._follow, name=f"alias {self.wanted}", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Follow it no longer."""
        self._stop.set()

    def _load(self, wanted: int | str) -> Served:
        version = versions.find(self._client, self._name, wanted, retry_seconds=10.0)
        return Served.load(
            version.name, version.version, version.package, version.example, allow_decoder=self._allow_decoder
        )

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self._look()
            except MlsparkError as error:
                self._fail(str(error))
            except Exception as error:  # the old version goes on, whatever is wrong with the new one
                logger.exception("alias %s of model %s could not be followed", self.wanted, self._name)
                self._fail(f"{type(error).__name__}: {error}")

    def _look(self) -> None:
        number = versions.with_alias(self._client, self._name, str(self.wanted), retry_seconds=0.0)
        if number is None:
            self._fail(f"model {self._name} has no alias {self.wanted} any more")
        elif number == self.served.number:
            self.problem = ""
        else:
            served = self._load(number)
            logger.info("model %s: version %d answers in place of %d", self._name, number, self.served.number)
            self.served, self.problem = served, ""

    def _fail(self, problem: str) -> None:
        self._observe_failure()
        if problem != self.problem:
            logger.warning("model %s: version %d goes on: %s", self._name, self.served.number, problem)
        self.problem = problem
