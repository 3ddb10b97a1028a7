import type { ApiResponse, MediaType, OpenApi, Operation, Parameter, Schema } from './document.ts';
import { Html, html } from './html.ts';

/** The document as one page for people, without scripts: what it says is all there, and folds by itself. */
export function renderPage({ info, paths, components }: OpenApi, style: string): string {
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${info.title}</title>
<style>${new Html(style)}</style>
</head>
<body>
<main>
<h1>${info.title}</h1>
${info.description.split('\n\n').map((paragraph) => html`<p>${paragraph}</p>`)}
<p class="small soft">Version ${info.version}. For programs: <a href="/openapi.json">/openapi.json</a>.</p>
<nav aria-label="Operations"><ul>${operations.map(
    ({ path, method, operation }) =>
      html`<li><a href="#${operation.operationId}"><span class="method ${method}">${method}</span> <code>${path}</code></a> <span class="soft">${operation.summary}</span></li>`,
  )}</ul></nav>
<h2>Operations</h2>
${operations.map(({ path, method, operation }) => renderOperation(path, method, operation))}
<h2>Schemas</h2>
${Object.entries(components.schemas).map(([name, schema]) => renderSchema(name, schema))}
</main>
</body>
</html>
`.text;
}

function renderOperation(path: string, method: string, operation: Operation): Html {
  const { operationId, summary, description, parameters = [], requestBody, responses } = operation;
  const body = Object.values(requestBody?.content ?? {})[0];
  const statuses = Object.entries(responses);
  const good = statuses.filter(([status]) => Number(status) < 400);
  const bad = statuses.filter(([status]) => Number(status) >= 400);
  return html`<section id="${operationId}">
<h3><span class="method ${method}">${method}</span> <code>${path}</code> <span>${summary}</span></h3>
${description === undefined ? [] : html`<p>${description}</p>`}
<pre>${curl(path, method, parameters, body)}</pre>
${parameters.length === 0 ? [] : renderParameters(parameters)}
${body === undefined ? [] : html`<h4>Body</h4><p>${schemaName(body.schema)}</p>`}
<h4>Answers</h4>
${good.map(([status, response]) => html`<p><b>${status}</b> ${response.description}</p>${headersAndExamples(response)}`)}
${bad.map(
  ([status, response]) =>
    html`<details><summary><b class="bad">${status}</b> ${response.description}</summary>${headersAndExamples(response)}</details>`,
)}
</section>`;
}

function renderParameters(parameters: readonly Parameter[]): Html {
  return html`<h4>Parameters</h4><div class="scroll"><table>
<tr><th>Name</th><th>In</th><th>Meaning</th></tr>
${parameters.map(
  ({
    name,
    in: where,
    required,
    description,
    example,
  }) => html`<tr><td><code>${name}</code></td><td>${where}${required ? '' : ', optional'}</td>
<td>${description} <span class="soft">Example: <code>${example}</code></span></td></tr>`,
)}
</table></div>`;
}

function headersAndExamples({ headers = {}, content = {} }: ApiResponse): Html {
  const lines = Object.entries(headers).map(([name, { example = '' }]) => `${name}: ${example}`);
  const types = Object.entries(content).map(([type]) => `Content-Type: ${type}`);
  const examples = Object.values(content).flatMap(({ examples: all = {} }) => Object.values(all));
  return html`<pre>${[...types, ...lines].join('\n')}</pre>
${examples.map(({ value }) => html`<pre>${JSON.stringify(value, null, 2)}</pre>`)}`;
}

/** A line to paste into a shell. The page does not know how the reader reached it, hence the variable. */
function curl(path: string, method: string, parameters: readonly Parameter[], body: MediaType | undefined): string {
  const target = parameters.reduce((text, { name, example }) => text.replace(`{${name}}`, example), path);
  const headers = parameters
    .filter((each) => each.in === 'header' && each.required)
    .map(({ name, example }) => `-H '${name}: ${example}'`);
  const [sample] = Object.values(body?.examples ?? {});
  const data =
    sample === undefined ? [] : ["-H 'Content-Type: application/json'", `-d '${JSON.stringify(sample.value)}'`];
  const verb = method === 'get' ? [] : [`-X ${method.toUpperCase()}`];
  return [`curl -i "\${API:-http://localhost:3000}${target}"`, ...verb, ...headers, ...data].join(' \\\n  ');
}

function schemaName({ $ref = '' }: Schema): Html {
  const name = $ref.slice($ref.lastIndexOf('/') + 1);
  return html`<a href="#${name}">${name}</a>`;
}

function renderSchema(name: string, schema: Schema): Html {
  const required = new Set(schema.required);
  return html`<section id="${name}">
<h3>${name}</h3>
${schema.description === undefined ? [] : html`<p>${schema.description}</p>`}
<div class="scroll"><table>
<tr><th>Field</th><th>Type</th><th>Rules</th></tr>
${Object.entries(schema.properties ?? {}).map(([field, property]) =>
  typeof property === 'boolean'
    ? html``
    : html`<tr><td><code>${field}</code></td><td>${typeName(property)}${required.has(field) ? '' : ', optional'}</td><td>${rules(property)}</td></tr>`,
)}
</table></div>
${schema.minProperties === undefined ? [] : html`<p class="small">At least ${schema.minProperties} of them.</p>`}
${schema.additionalProperties === false ? html`<p class="small">Other fields are refused.</p>` : []}
</section>`;
}

const typeName = ({ type, format }: Schema): string => [type, format].filter((part) => part !== undefined).join(', ');

function rules({ description, minLength, maxLength, minimum }: Schema): string {
  const least = minLength === undefined ? [] : [`At least ${minLength} character${minLength === 1 ? '' : 's'}.`];
  const most = maxLength === undefined ? [] : [`At most ${maxLength} characters.`];
  const from = minimum === undefined ? [] : [`From ${minimum}.`];
  return [...(description === undefined ? [] : [description]), ...least, ...most, ...from].join(' ');
}
