import { subscribe } from 'node:diagnostics_channel';

/** Loaded with `--import` into a worker: the one message that ends the process that handles it, as running out of memory would. */
export const CRASHED = 70;

subscribe('oncebox:inbox:recorded', (signalled) => {
  const isPoison =
    typeof signalled === 'object' &&
    signalled !== null &&
    'messageId' in signalled &&
    signalled.messageId === process.env['ONCEBOX_POISON'];
  if (isPoison) process.exit(CRASHED);
});
