import { createHash } from 'node:crypto';
import { Router } from 'express';
import { notAllowed } from '../error-handler.ts';
import { openApi } from './openapi.ts';
import { renderPage } from './page.ts';
import { STYLE } from './style.ts';

/** The page carries its style and needs nothing else, and so may load nothing. */
const POLICY = [
  "default-src 'none'",
  `style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`,
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

export function docsRoutes(): Router {
  const page = renderPage(openApi, STYLE);
  const routes = Router();
  routes
    .route('/openapi.json')
    .get((_request, response) => void response.json(openApi))
    .all(notAllowed('GET', 'HEAD'));
  routes
    .route('/docs')
    .get((_request, response) => void response.set('content-security-policy', POLICY).type('html').send(page))
    .all(notAllowed('GET', 'HEAD'));
  return routes;
}
