export {
  type Aggregate,
  type Event,
  fold,
  type Parser,
  type Recorded,
  type SnapshotPolicy,
  type Stream,
} from './aggregate.ts';
export { EventStoreError, type EventStoreErrorCode, VersionConflictError } from './errors.ts';
export { type Reader, readEvents } from './events.ts';
export { isProjection, type Projection } from './projection.ts';
export { type RebuildOptions, type RebuildProgress, readRebuilds, rebuild } from './rebuild.ts';
export { append, load, loadForUpdate } from './stream.ts';
