import { readFileSync } from 'node:fs';
import { findPackageJSON } from 'node:module';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { context, DiagLogLevel, diag, propagation, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import {
  defaultResource,
  defaultServiceName,
  detectResources,
  resourceAttributesEnvDetector,
  resourceFromAttributes,
  serviceInstanceIdDetector,
  serviceNameEnvDetector,
} from '@opentelemetry/resources';
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import { z } from 'zod';
import { loadConfig } from './config.ts';
import { createLogger } from './logger.ts';
import { stopLast } from './run.ts';
import { logSettings, share } from './settings.ts';

const config = z.object({
  /** The exporter adds `/v1/traces`, and reads the other OTEL_EXPORTER_OTLP_* by itself. */
  OTEL_EXPORTER_OTLP_ENDPOINT: z.url({ protocol: /^https?$/, error: 'must read http://host:port' }),
  /** Of the traces that begin in this process. Those that come from elsewhere are sampled as they were there. */
  OTEL_TRACES_SAMPLER_ARG: share(1),
  ...logSettings,
});

/** Until spans are sent that have ended: the SDK's own 5 s are long for who looks for a trace that was just made. */
const EXPORT_EVERY_MS = 1_000;
/** What the end of the process waits for a collector: an exporter tries for 10 s, longer than the process has. */
const LAST_EXPORT_MS = 2_000;

/**
 * Registers the OpenTelemetry SDK: from now on spans are made, and sent by OTLP/HTTP in the background. Where the collector is away they
 * are dropped, which the log says, and the process goes on.
 */
export function exportSpans(): void {
  const settings = loadConfig(config);
  const service = nameOfProgram();
  const logger = createLogger({ name: service, level: settings.LOG_LEVEL, format: settings.LOG_FORMAT });
  const warn = (detail: string): void => logger.warn({ detail }, 'Tracing: spans are lost, or not as they should be');
  const quiet = (): void => undefined;
  diag.setLogger({ error: warn, warn, info: quiet, debug: quiet, verbose: quiet }, DiagLogLevel.WARN);

  const exporter = new OTLPTraceExporter();
  const detectors = [serviceInstanceIdDetector, resourceAttributesEnvDetector, serviceNameEnvDetector];
  const provider = new TracerProvider({
    resource: defaultResource()
      .merge(resourceFromAttributes({ 'service.name': service }))
      .merge(detectResources({ detectors })),
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(settings.OTEL_TRACES_SAMPLER_ARG) }),
    spanProcessors: [new BatchSpanProcessor({ exporter, scheduledDelayMillis: EXPORT_EVERY_MS })],
  });
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  trace.setGlobalTracerProvider(provider);

  stopLast({
    name: 'export of spans',
    // A collector that is away is no reason to call a clean stop a failure.
    stop: () =>
      Promise.race([
        provider.shutdown().catch((error: unknown) => warn(String(error))),
        delay(LAST_EXPORT_MS).then(() => warn(`the collector has not answered within ${LAST_EXPORT_MS} ms`)),
      ]),
  });
}

/** Of the package that the program belongs to, without its scope: `api`. */
function nameOfProgram(): string {
  const main = process.argv[1];
  const file = main === undefined ? undefined : findPackageJSON(pathToFileURL(main));
  const { name } =
    file === undefined ? {} : z.object({ name: z.string().optional() }).parse(JSON.parse(readFileSync(file, 'utf8')));
  return name?.replace(/^@.*\//, '') ?? defaultServiceName();
}
