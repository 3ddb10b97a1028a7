export type { Consuming } from './consumers.ts';
export type { Sample } from './gauges.ts';
export { createMetrics, type Metrics } from './metrics.ts';
export { keepReading, type Reading, type ReadingOptions } from './reading.ts';
export type { Requests } from './requests.ts';
export {
  deadLetterSamples,
  outboxSamples,
  problemSamples,
  rebuildSamples,
  retentionSample,
  sagaSamples,
} from './samples.ts';
