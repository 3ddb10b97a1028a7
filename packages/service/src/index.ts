export { type Environment, loadConfig, readConfig } from './config.ts';
export { ConfigError, reasonCode, type ServiceErrorCode } from './errors.ts';
export { type Listening, type ListenSettings, listen } from './http-server.ts';
export { createLogger, type Logger, type LoggerSettings } from './logger.ts';
export { type Check, type MetricsPage, type OpsSettings, startOpsServer } from './ops.ts';
export { type RunSettings, run, type StopStep } from './run.ts';
export { amqpUrls, databaseUrl, databaseUrls, flag, integer, logSettings, port } from './settings.ts';
export { type WaitSettings, waitFor } from './wait-for.ts';
