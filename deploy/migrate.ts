import { spawnSync } from 'node:child_process';

/** `npm run migrate` with the environment that this process was given (`make migrate` reads the .env files for it). */
const { status } = spawnSync('npm', ['run', '--silent', 'migrate'], { stdio: 'inherit' });
process.exitCode = status ?? 1;
