"""Traces by OpenTelemetry, from door to door: HTTP or Kafka in -> commit -> provider -> Kafka out, and on from there.

Room: adapters. Imported only where OTEL_EXPORTER_OTLP_ENDPOINT is set (extra `tracing`): whoever may be traced has a
callable that is None otherwise, and pays nothing. What crosses a process, a restart or a topic is one `traceparent`
(W3C): in the headers of HTTP and Kafka, in the outbox, and sealed with a provider call that somebody makes later.
No span holds card data, a token, a body or a text of a stranger: ids, words of ours, numbers.
"""

import asyncio
import contextvars
import re
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

QUEUE_MAX = 4096
"""Spans that wait to be sent; more are dropped, never waited for."""
BATCH_MAX = 512
SEND_EVERY_MS = 1000
SEND_TIMEOUT_S = 5
FLUSH_MS = 3000
"""At the end of the process."""
TRACEPARENT = "traceparent"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)

Ended = Callable[[Any], None]
"""Told how it ended: what came of it, or None when nothing did."""


def otlp_exporter(endpoint: str, headers: str | None) -> SpanExporter:
    """To a collector, by HTTP. `headers`: `name=value,…`, as OTEL_EXPORTER_OTLP_HEADERS has them."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    pairs = (pair.partition("=") for pair in (headers or "").split(",") if "=" in pair)
    return OTLPSpanExporter(
        f"{endpoint.rstrip('/')}/v1/traces",
        headers={name.strip(): value.strip() for name, _, value in pairs},
        timeout=SEND_TIMEOUT_S,
    )


class RequestSpan:
    """One request, current for everything that is done in its context until it ends."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Any) -> None:
        self._span = span
        self._token = otel.attach(trace.set_span_in_context(span))

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    def end(self, status: int, **ids: str) -> None:
        otel.detach(self._token)
        span = self._span
        if span.is_recording():
            span.set_attributes({"http.response.status_code": status, **{name: it for name, it in ids.items() if it}})
            if status >= 500:
                span.set_status(Status(StatusCode.ERROR))
        span.end()


class CommitSpan:
    """One command's commit: its `traceparent` goes with what is committed."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: Any) -> None:
        self._span = span
        self.traceparent = _written(span.get_span_context())

    def end(self, done: "asyncio.Future[Any]") -> None:
        if done.cancelled() or done.exception() is not None:
            self._span.set_status(Status(StatusCode.ERROR))
        else:
            self._span.set_attribute("payment.commit", str(done.result()))
        self._span.end()


class Tracing:
    """For one process. Nothing here waits; sending is a thread's of the SDK."""

    def __init__(self, exporter: SpanExporter, *, service: str, version: str, worker: str, share: float) -> None:
        """`share` of all traces is kept, also of those that somebody else began: a caller's flag costs us nothing."""
        kept = TraceIdRatioBased(share)
        self._provider = TracerProvider(
            sampler=ParentBased(kept, remote_parent_sampled=kept),
            resource=Resource.create(
                {"service.name": service, "service.version": version, "service.instance.id": worker}
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter, max_queue_size=QUEUE_MAX, schedule_delay_millis=SEND_EVERY_MS, max_export_batch_size=BATCH_MAX
            )
        )
        self._tracer = self._provider.get_tracer("payment_service", version)

    async def close(self) -> None:
        await asyncio.to_thread(self._provider.force_flush, FLUSH_MS)
        await asyncio.to_thread(self._provider.shutdown)

    # --- doors -----------------------------------------------------------------------------------------------

    def request(self, method: str, route: str, headers: Mapping[str, str]) -> RequestSpan:
        return RequestSpan(
            self._tracer.start_span(
                f"{method} {route}",
                _parent(headers.get(TRACEPARENT)),
                SpanKind.SERVER,
                {"http.request.method": method, "http.route": route},
            )
        )

    def event(self, stream: str, topic: str, headers: Sequence[tuple[str, bytes]]) -> tuple[contextvars.Context, Ended]:
        """A record that was read: the context to do its work in, and whom to tell of its end."""
        given = next((value for name, value in headers if name == TRACEPARENT and value), b"")
        span = self._tracer.start_span(
            f"process {topic}",
            _parent(given.decode("ascii", "replace")),
            SpanKind.CONSUMER,
            {"messaging.system": "kafka", "messaging.destination.name": topic, "payment.stream": stream},
        )

        def ended(error: Any) -> None:
            if error is not None:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
            span.end()

        return _within(trace.set_span_in_context(span, otel.Context())), ended

    # --- on the way ------------------------------------------------------------------------------------------

    def commit(self, payment_id: str) -> CommitSpan:
        attributes = {"db.system.name": "postgresql", "payment.id": payment_id}
        return CommitSpan(self._tracer.start_span("commit", None, SpanKind.CLIENT, attributes))

    def call(self, provider: str, operation: str, key: str) -> Ended:
        """A try at a provider. Told the answer."""
        attributes = {"payment.provider": provider, "payment.operation": operation, "payment.call": key}
        span = self._tracer.start_span(f"{provider} {operation}", None, SpanKind.CLIENT, attributes)

        def ended(answer: Any) -> None:
            if answer is not None:
                span.set_attributes({"payment.verdict": str(answer.verdict), "payment.code": answer.code})
            span.end()

        return ended

    def publish(self, topic: str, payment_id: str, sequence: int, traceparent: str) -> Ended:
        """An event on its way to the broker. Told what is wrong, or None at the ack."""
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka", "messaging.destination.name": topic, "payment.id": payment_id,
            "payment.sequence": sequence,
        }  # fmt: skip
        span = self._tracer.start_span(f"publish {topic}", _parent(traceparent), SpanKind.PRODUCER, attributes)

        def ended(error: Any) -> None:
            if error is not None:
                span.set_status(Status(StatusCode.ERROR))
            span.end()

        return ended

    def traceparent(self) -> str | None:
        """Of what is done now, for whoever goes on with it elsewhere."""
        at = trace.get_current_span().get_span_context()
        return _written(at) if at.is_valid else None

    def continued(self, traceparent: str | None) -> contextvars.Context:
        """To do in it what an earlier commit has left to do: nobody's but that trace's."""
        return _within(_parent(traceparent))


def add_trace_ids(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: the trace and span of whoever writes the line."""
    at = trace.get_current_span().get_span_context()
    if at.is_valid:
        line["trace_id"], line["span_id"] = f"{at.trace_id:032x}", f"{at.span_id:016x}"
    return line


def _parent(traceparent: str | None) -> otel.Context:
    """An empty one for what is no traceparent: a trace of our own begins."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None:
        return otel.Context()
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    at = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return trace.set_span_in_context(NonRecordingSpan(at), otel.Context()) if at.is_valid else otel.Context()


def _written(at: SpanContext) -> str:
    return f"00-{at.trace_id:032x}-{at.span_id:016x}-{at.trace_flags:02x}"


def _within(context: otel.Context) -> contextvars.Context:
    empty = contextvars.Context()
    empty.run(otel.attach, context)
    return empty


__all__ = ["Span", "Tracing", "add_trace_ids", "otlp_exporter"]
