import { execFile, execFileSync } from 'node:child_process';
import { existsSync, globSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';

/** The code of the last release, ready to run beside ours. */

const ROOT = join(import.meta.dirname, '../..');
/** Names the commit that counts as the last release for as long as the repository has no tag. */
const WITHOUT_A_TAG = join(import.meta.dirname, 'last-release');

export interface Release {
  /** Of its files, as in this repository. */
  readonly root: string;
  readonly commit: string;
  remove(): void;
}

/** @throws Error that says what to do, where the commit is not in this clone or cannot run. */
export async function unpackLastRelease(): Promise<Release> {
  const commit = findCommit();
  const root = mkdtempSync(join(tmpdir(), 'oncebox-last-release-'));
  const remove = () => rmSync(root, { recursive: true, force: true });
  try {
    const archive = execFileSync('git', ['archive', commit], { cwd: ROOT, maxBuffer: 2 ** 30 });
    execFileSync('tar', ['-x', '-C', root], { input: archive });
    await provideModules(root);
    return { root, commit, remove };
  } catch (error) {
    remove();
    throw error;
  }
}

/** The newest tag before this commit, or what stands for one. */
function findCommit(): string {
  const tag = git('describe', '--tags', '--abbrev=0', 'HEAD^');
  const named = 'answer' in tag ? tag.answer : readFileSync(WITHOUT_A_TAG, 'utf8').trim();
  const commit = git('rev-parse', '--verify', '--quiet', `${named}^{commit}`);
  if ('answer' in commit) return commit.answer;
  const isShallow = git('rev-parse', '--is-shallow-repository');
  const remedy =
    'answer' in isShallow
      ? `This clone does not have it: run "git fetch --tags${isShallow.answer === 'true' ? ' --unshallow' : ''} origin", or "git fetch origin ${named}".`
      : `Git cannot say: ${isShallow.problem}. The test needs a clone of the repository, with its history.`;
  throw new Error(`The last release is ${named}, and it has to run beside this one. ${remedy}`);
}

function git(...args: readonly string[]): { readonly answer: string } | { readonly problem: string } {
  try {
    return { answer: execFileSync('git', args, { cwd: ROOT, encoding: 'utf8', stdio: 'pipe' }).trim() };
  } catch (error) {
    return { problem: error instanceof Error ? error.message.trim() : String(error) };
  }
}

const lock = z.object({
  packages: z.record(
    z.string(),
    z.object({ version: z.string().optional(), dev: z.boolean().optional(), link: z.boolean().optional() }),
  ),
});

/**
 * Links to what is installed here, if those are the versions that the release was locked to;
 * otherwise npm installs its own.
 */
async function provideModules(root: string): Promise<void> {
  const [theirs, ours] = [root, ROOT].map((each) =>
    lock.parse(JSON.parse(readFileSync(join(each, 'package-lock.json'), 'utf8'))),
  );
  const others = Object.entries(theirs?.packages ?? {}).filter(
    ([path, { version, dev, link }]) =>
      path.includes('node_modules/') && !dev && !link && ours?.packages[path]?.version !== version,
  );
  if (others.length === 0) return linkModules(root);
  const names = others.map(([path, { version }]) => `${path.replace(/.*node_modules\//, '')} ${version}`).join(', ');
  const args = ['ci', '--omit=dev', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  await promisify(execFile)('npm', args, { cwd: root }).catch((error: unknown) => {
    throw new Error(
      `The last release needs other versions than are installed here (${names}), and npm could not install them.`,
      { cause: error },
    );
  });
}

/**
 * Node strips types by the real path of a file, so what a link under node_modules leads to runs as
 * well.
 */
function linkModules(root: string): void {
  const modules = join(root, 'node_modules');
  mkdirSync(join(modules, '@oncebox'), { recursive: true });
  for (const name of readdirSync(join(ROOT, 'node_modules'))) {
    if (!name.startsWith('.') && !existsSync(join(modules, name)))
      symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
  }
  const manifest = z.object({ name: z.string() });
  for (const file of globSync('{packages,apps}/*/package.json', { cwd: root })) {
    const { name } = manifest.parse(JSON.parse(readFileSync(join(root, file), 'utf8')));
    if (name.startsWith('@oncebox/')) symlinkSync(join(root, dirname(file)), join(modules, name));
  }
}
