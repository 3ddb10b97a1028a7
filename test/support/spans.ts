import { context, propagation, type SpanKind, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import { afterAll, beforeAll, beforeEach } from 'vitest';

const exporter = new InMemorySpanExporter();

/** Turns tracing on in this process for the tests of a file, which are to import this before what they test has made a span. */
export function useSpans(): void {
  beforeAll(() => {
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    propagation.setGlobalPropagator(new W3CTraceContextPropagator());
    trace.setGlobalTracerProvider(new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] }));
  });
  beforeEach(() => exporter.reset());
  afterAll(() => {
    for (const api of [trace, propagation, context]) api.disable();
  });
}

/** Those that have ended since the test began. */
export const spans = (): readonly ReadableSpan[] => exporter.getFinishedSpans();

/** As it is in a `traceparent`. */
export const idOf = (span: ReadableSpan): string => span.spanContext().spanId;

export const spanOf = (kind: SpanKind, name: string): ReadableSpan => {
  const found = spans().filter((span) => span.kind === kind && span.name.includes(name));
  const [span] = found;
  if (span === undefined || found.length > 1) throw new Error(`${found.length} spans have ${name} in their name`);
  return span;
};
