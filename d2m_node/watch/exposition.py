"""The metrics as Prometheus reads them. The one module that uses prometheus_client."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from d2m_node.watch import metrics
from d2m_node.watch.metrics import Kind
from d2m_node.watch.reading import Reading
from d2m_node.watch.samples import Sample, list_samples

LAG_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
TRAINING_BUCKETS = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)


class Exposition:
    """A registry of this node's own; nothing is kept in the library's global one."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._samples = _SampleCollector()
        self._registry.register(self._samples)
        self._lag = _make_histogram(metrics.LOOP_LAG, LAG_BUCKETS, self._registry)
        self._training = _make_histogram(metrics.TRAINING, TRAINING_BUCKETS, self._registry)
        self._version = version("d2m-node")

    def observe_lag(self, seconds: float) -> None:
        """Note how late the event loop was."""
        self._lag.observe(seconds)

    def observe_training(self, result: str, seconds: float) -> None:
        """Note how long a training took, and how it ended."""
        self._training.labels(result).observe(seconds)

    def render(self, reading: Reading, accept: str) -> tuple[bytes, str]:
        """Write a reading in the format that the Accept header asks for; return its type too."""
        encode, content_type = choose_encoder(accept)
        self._samples.current = list(list_samples(reading, self._version))
        return encode(self._registry), content_type


class _SampleCollector(Collector):
    """Hands a reading's samples to the library, family by family."""

    def __init__(self) -> None:
        self.current: Sequence[Sample] = ()

    def collect(self) -> Iterable[Metric]:
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for sample in self.current:
            family = families.get(sample.metric.name)
            if family is None:
                family = families[sample.metric.name] = _make_family(sample.metric)
            family.add_metric(sample.labels, sample.value)
        return families.values()


def _make_family(metric: metrics.Metric) -> GaugeMetricFamily | CounterMetricFamily:
    if metric.kind is Kind.COUNTER:
        return CounterMetricFamily(metric.name, metric.text, labels=metric.labels)
    return GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)


def _make_histogram(
    metric: metrics.Metric, buckets: Sequence[float], registry: CollectorRegistry
) -> Histogram:
    return Histogram(metric.name, metric.text, metric.labels, registry=registry, buckets=buckets)
