"""What a server counts, as Prometheus reads it."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mlspark.contracts.check_arrow import Broken

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "mlspark_requests", "Requests, by path and HTTP status.", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "mlspark_request_seconds", "Seconds from a request's headers to its answer.", ["path"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.rows = Counter("mlspark_rows", "Rows, predicted or refused.", ["outcome"], registry=self.registry)
        self.broken = Counter(
            "mlspark_broken_rules", "Rules of the contract that rows broke.", ["rule"], registry=self.registry
        )
        self.batch_rows = Histogram(
            "mlspark_batch_rows", "Rows that the model computed together.", buckets=_ROWS, registry=self.registry
        )
        self.waiting = Gauge("mlspark_waiting_rows", "Rows that wait for the model.", registry=self.registry)
        self.version = Gauge(
            "mlspark_model_version", "Number of the version.", ["model", "role"], registry=self.registry
        )
        self.load_failures = Counter(
            "mlspark_version_failures", "Times that the version an alias names could not be loaded or asked for.",
            registry=self.registry,
        )  # fmt: skip

        self.shadow_rows, self.shadow_different, self.shadow_dropped, self.shadow_failed = (
            Counter(f"mlspark_shadow_{name}", words, registry=self.registry)
            for name, words in (
                ("rows", "Rows that the shadow version answered."),
                ("different", "Rows of which it predicts something else, or that one of both versions refuses."),
                ("dropped", "Rows that it was not asked, because too many waited."),
                ("failed", "Rows on which it failed."),
            )
        )
        self.log_rows, self.log_lost = (
            Counter(f"mlspark_log_{name}", words, registry=self.registry)
            for name, words in (
                ("rows", "Rows written to the prediction log."),
                ("lost", "Rows that could not be written to it."),
            )
        )

    def observe(self, num_rows: int, broken: Sequence[Broken]) -> None:
        """Count rows that were judged."""
        refused = len({each.row for each in broken})
        self.rows.labels("refused").inc(refused)
        self.rows.labels("predicted").inc(num_rows - refused)
        for each in broken:
            # The name of a column that the contract does not know is the sender's: nobody may make labels.
            self.broken.labels("extra" if each.rule == "extra" else each.reason).inc()

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)
