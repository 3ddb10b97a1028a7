import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { promtool } from '../deploy/observability/promtool.ts';

const FOLDER = join(import.meta.dirname, '../deploy/observability');
const read = (file: string): string => readFileSync(join(FOLDER, file), 'utf8');
const alerts = [...read('alerts.yml').matchAll(/- alert: (\w+)/g)].map(([, name = '']) => name);

// May have to be installed.
beforeAll(() => promtool('--version'), 300_000);

test('Prometheus accepts its configuration and the rules', async () => {
  expect(await promtool('check', 'config', 'prometheus.yml')).toContain('SUCCESS');
});

test('each alert fires and resolves on series made for it, and a quiet system fires none', async () => {
  expect(await promtool('test', 'rules', 'alerts.test.yml')).toContain('SUCCESS');
}, 60_000);

test('there is no alert without such series, and none without an entry in the runbook', () => {
  expect(alerts.length).toBeGreaterThan(8);
  const cases = read('alerts.test.yml');
  const runbook = readFileSync(join(import.meta.dirname, '../docs/operations.md'), 'utf8');
  expect(alerts.filter((alert) => !cases.includes(`alertname="${alert}"`))).toEqual([]);
  expect([...runbook.matchAll(/^### (Oncebox\w+)$/gm)].map(([, name]) => name)).toEqual(alerts);
  const links = [...read('alerts.yml').matchAll(/runbook_url: docs\/operations\.md#(\w+)/g)].map(
    ([, anchor]) => anchor,
  );
  expect(links).toEqual(alerts.map((alert) => alert.toLowerCase()));
});

test('the expressions of the dashboard are PromQL', async () => {
  const expressions = expressionsOf(read('grafana/dashboards/oncebox.json'));
  expect(expressions.length).toBeGreaterThan(20);
  // promtool reads rules alone; JSON is YAML.
  const rules = expressions.map((expr, index) => ({ record: `panel:${index}:expr`, expr }));
  const folder = mkdtempSync(join(tmpdir(), 'oncebox-panels-'));
  const file = join(folder, 'panels.yml');
  writeFileSync(file, JSON.stringify({ groups: [{ name: 'panels', rules }] }));
  expect(await promtool('check', 'rules', file)).toContain(`${expressions.length} rules found`);
  rmSync(folder, { recursive: true });
});

const expressionsOf = (dashboard: string): string[] =>
  [...dashboard.matchAll(/"expr": ("(?:[^"\\]|\\.)*")/g)].map(([, text = '']) =>
    String(JSON.parse(text)).replaceAll('$__rate_interval', '1m'),
  );
