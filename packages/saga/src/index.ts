export { defineSaga, type Saga, type SagaDefinition, type Step } from './definition.ts';
export { eraseSaga, type SagaErasure } from './erase.ts';
export { SagaError, type SagaErrorCode } from './errors.ts';
export {
  countSagas,
  findSagas,
  hasSagas,
  listSagas,
  type ResumeOutcome,
  resumeSaga,
  type SagaCount,
  type SagaDetails,
  type SagaEntry,
  type SagaState,
} from './inspect.ts';
export { answersTo, startSaga } from './process.ts';
export { forgetSagas, SAGAS } from './retention.ts';
export { type TimeoutSettings, watchTimeouts } from './timeouts.ts';
