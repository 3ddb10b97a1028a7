import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { type Listening, listen } from '@oncebox/service';
import express from 'express';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { openApi } from './openapi.ts';
import { docsRoutes } from './routes.ts';

let http: Listening;
beforeAll(async () => {
  http = await listen(createServer(express().use(docsRoutes())), { port: 0, host: '127.0.0.1' });
});
afterAll(() => http.close());
const get = (path: string) => fetch(`http://127.0.0.1:${http.port}${path}`);

it('serves the document', async () => {
  const response = await get('/openapi.json');
  expect(response.headers.get('content-type')).toMatch('application/json');
  expect(await response.json()).toEqual(JSON.parse(JSON.stringify(openApi)));
});

it('serves the page under a policy that allows its own style and nothing else', async () => {
  const page = await get('/docs');
  expect(page.headers.get('content-type')).toBe('text/html; charset=utf-8');
  const [, style = ''] = /<style>(.*?)<\/style>/s.exec(await page.text()) ?? [];
  const hash = createHash('sha256').update(style).digest('base64');
  expect(page.headers.get('content-security-policy')).toBe(
    `default-src 'none'; style-src 'sha256-${hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
  );
});
