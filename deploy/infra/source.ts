import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { nativeIsPossible } from './native.ts';

/** Where the servers come from: URLs in the environment, a Docker engine, or Debian's packages on this machine. */
export type Source = 'given' | 'docker' | 'native';

/**
 * The first source that is there, in the order of `Source`; `INFRA=docker` or `INFRA=native` leaves no choice.
 *
 * @param urls the variables that together make `given`
 * @throws Error when there is none, with what would make one.
 */
export async function chooseSource(
  env: NodeJS.ProcessEnv,
  urls: readonly string[],
  dockerAnswers: () => Promise<boolean>,
) {
  const source = await firstSource(env, urls, dockerAnswers);
  if (source === 'docker' && !(await dockerAnswers())) {
    throw new Error('INFRA=docker, but no Docker engine answers ("docker info", "docker compose version"). Start one.');
  }
  if (source !== 'native' || nativeIsPossible()) return source;
  throw new Error(
    [
      'Oncebox needs a MySQL and a RabbitMQ, and there is no way to get them here. Do one of these:',
      '  - start a Docker engine that has Compose v2 ("docker info" and "docker compose version" must work);',
      '  - on Debian or Ubuntu: run this as root, or as root once',
      '    apt-get install mariadb-server-core mariadb-client-core rabbitmq-server',
      `  - use servers of your own: set ${urls.join(', ')} (.env.example shows their form).`,
    ].join('\n'),
  );
}

async function firstSource(
  env: NodeJS.ProcessEnv,
  urls: readonly string[],
  dockerAnswers: () => Promise<boolean>,
): Promise<Source> {
  const forced = env['INFRA'];
  if (forced === 'docker' || forced === 'native') return forced;
  if (forced)
    throw new Error(`INFRA must be "docker" or "native", not "${forced}"; without it the choice is made for you`);
  if (urls.every((name) => env[name])) return 'given';
  return (await dockerAnswers()) ? 'docker' : 'native';
}

/** Enough for testcontainers. */
export const engineAnswers = (): Promise<boolean> => succeeds('docker', ['info']);

/** What `make infras` needs. */
export const composeAnswers = async (): Promise<boolean> =>
  (await engineAnswers()) && (await succeeds('docker', ['compose', 'version']));

async function succeeds(command: string, args: readonly string[]): Promise<boolean> {
  try {
    await promisify(execFile)(command, args, { timeout: 5_000 });
    return true;
  } catch {
    return false; // not installed, not running, or not answering in time
  }
}
