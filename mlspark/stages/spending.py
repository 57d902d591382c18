"""What a training has taken so far, of all its drivers, and its end when that is what it may cost. Driver."""

import time

from mlspark import storage
from mlspark.errors import BudgetSpent
from mlspark.settings.pipeline import Settings
from mlspark.stages import costs
from mlspark.training.events import CheckpointWritten, EpochEnded, Event, OfMember, OnEvent

_SAVE_SECONDS = 5.0
_FILE = "spent.json"


class Spending:
    """Seconds of a run. A driver that is killed leaves those up to the last event that it saw, to within 5 s."""

    def __init__(self, settings: Settings, run_uri: str, *, started: float) -> None:
        """Go on with what earlier drivers have taken.

        Args:
            settings: with the tier and the budget.
            run_uri: folder of the run.
            started: when this driver began, by `time.monotonic`.

        Raises:
            ConfigError: see `costs.price`.
        """
        self._price, self._budget = costs.price(settings), settings.cost.budget
        self._uri, self._started = storage.join(run_uri, _FILE), started
        self._before = float(storage.read_json(self._uri)["seconds"]) if storage.exists(self._uri) else 0.0
        self._saved = self._last_checkpoint = self.seconds
        self._is_ending = False

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._started

    def save(self) -> float:
        """Keep the seconds so far with the run, and return them."""
        self._saved = self.seconds
        storage.write_json(self._uri, {"seconds": round(self._saved, 3)})
        return self._saved

    def followed_by(self, on_event: OnEvent) -> OnEvent:
        """Return what calls `on_event`, then keeps the time; it raises BudgetSpent at a checkpoint that must be the last."""

        def follow(event: Event) -> None:
            on_event(event)
            if self.seconds - self._saved >= _SAVE_SECONDS:
                self.save()
            of = event.event if isinstance(event, OfMember) else event
            if isinstance(of, EpochEnded) and of is event:
                self._is_ending = of.epoch == of.epochs
            if isinstance(of, CheckpointWritten):
                self._check(of.step)

        return follow

    def _check(self, step: int) -> None:
        """Raise BudgetSpent when the budget does not last to the next checkpoint."""
        now = self.seconds
        pace, self._last_checkpoint = now - self._last_checkpoint, now
        if self._price is None or self._budget is None or self._is_ending:
            return
        if self._price.of(now + pace) > self._budget:
            self.save()
            raise BudgetSpent(
                f"cost.budget={self._budget:g}: {self._price.words(now)} are spent, and the next checkpoint would be "
                f"beyond; the one of step {step} is kept: raise cost.budget and run again to go on from there"
            )
