"""What a scorer tells Prometheus. All of it lives here, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()
"""Of this process; the default registry is left to whoever hosts the scorer."""

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 1.0, 2.0, 5.0, 10.0)
_COUNTS = (1, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 4_000, 8_000)

REQUESTS = Counter(
    "querylift_requests_total",
    "Requests answered",
    ["endpoint", "status"],
    registry=REGISTRY,
)
ERRORS = Counter(
    "querylift_errors_total",
    "Requests refused or failed, by reason",
    ["endpoint", "reason"],
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "querylift_request_seconds",
    "From the first byte of a request to the last of its answer",
    ["endpoint"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
IN_FLIGHT = Gauge("querylift_requests_in_flight", "Requests being answered", registry=REGISTRY)
DOCUMENTS = Histogram(
    "querylift_request_documents",
    "Titles or items in a request",
    ["endpoint"],
    buckets=_COUNTS,
    registry=REGISTRY,
)
UNKNOWN_ITEMS = Counter(
    "querylift_unknown_items_total", "Item ids that the item table lacks", registry=REGISTRY
)
TOKENS = Counter("querylift_tokens_total", "Tokens read by the model", registry=REGISTRY)
TRUNCATED = Counter(
    "querylift_truncated_texts_total", "Texts cut to the model's caps", registry=REGISTRY
)

MODEL_INFO = Gauge(
    "querylift_model_info",
    "1 for the model that is loaded",
    ["model", "version", "source"],
    registry=REGISTRY,
)
ALIAS_CHANGED = Gauge(
    "querylift_alias_changed",
    "1 once the registry's alias points to another version than the one loaded",
    registry=REGISTRY,
)

CACHE_REQUESTS = Counter(
    "querylift_cache_requests_total",
    "Look-ups in a cache; result is hit, miss, or error: nobody answered in time",
    ["cache", "result"],
    registry=REGISTRY,
)

QUEUE_PAIRS = Gauge(
    "querylift_queue_pairs", "Pairs that wait for the model or are in it", registry=REGISTRY
)
QUEUE_SECONDS = Histogram(
    "querylift_queue_seconds",
    "From a request's arrival in the queue to its first batch",
    buckets=_SECONDS,
    registry=REGISTRY,
)
BATCH_TOKENS = Histogram(
    "querylift_batch_tokens",
    "Tokens of one turn of the model, without padding",
    buckets=(128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768),
    registry=REGISTRY,
)


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
