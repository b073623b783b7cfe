"""What the webhook counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hami_webhook.review import Outcome

_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Metrics:
    """The series of one process, in the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        admissions = Counter(
            "hami_webhook_admissions",
            "Admission questions answered, by outcome.",
            ["outcome"],
            registry=registry,
        )
        # Every outcome from the start: a rate over a series that is absent finds nothing.
        self.admissions = {o: admissions.labels(outcome=o.value) for o in Outcome}
        self.duration = Histogram(
            "hami_webhook_admission_duration_seconds",
            "Time from the whole question to the answer.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.connections = Gauge(
            "hami_webhook_tls_connections", "Open TLS connections.", registry=registry
        )
        self.certificate_expiry = Gauge(
            "hami_webhook_certificate_expiry_timestamp_seconds",
            "When the certificate in use ends, in Unix seconds; 0 until there is one.",
            registry=registry,
        )
        self.config_valid = Gauge(
            "hami_webhook_config_valid",
            "Whether device-config.yaml as it is now is in force; 0: the last good one is.",
            registry=registry,
        )
        self.config_valid.set(1)
        reloads = Counter(
            "hami_webhook_config_reloads",
            "Changes of device-config.yaml, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self.config_loaded = reloads.labels(outcome="loaded")
        self.config_refused = reloads.labels(outcome="refused")

    def config_changed(self, fault: str) -> None:
        """Count a change of the configuration; `fault` is empty when it is in force."""
        self.config_valid.set(0 if fault else 1)
        (self.config_refused if fault else self.config_loaded).inc()
