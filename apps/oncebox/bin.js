#!/usr/bin/env node
import { existsSync } from 'node:fs';
import module from 'node:module';

/**
 * The command of a clone, where nothing is compiled, and of an installed package, which has no
 * sources. The sources import each other by the condition `oncebox-source`. It is set here, as npm
 * links this file as it is and passes no options to Node.
 */
if (existsSync(new URL('src/main.ts', import.meta.url))) {
  module.registerHooks({
    resolve: (specifier, context, nextResolve) =>
      nextResolve(specifier, { ...context, conditions: [...context.conditions, 'oncebox-source'] }),
  });
  await import('./src/main.ts');
} else {
  await import('./dist/main.js');
}
