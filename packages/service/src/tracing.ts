import { loadEnvironmentFiles } from './config.ts';

// node --import @oncebox/service/tracing main.ts
// Sends the process's spans to OTEL_EXPORTER_OTLP_ENDPOINT. Without that variable it does nothing, and the SDK is not even loaded.

loadEnvironmentFiles();
if (process.env['OTEL_EXPORTER_OTLP_ENDPOINT']) {
  const { exportSpans } = await import('./spans-export.ts');
  exportSpans();
}
