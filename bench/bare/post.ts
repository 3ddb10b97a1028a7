import { Agent, request } from 'node:http';

/** Beyond so many at once a request waits here for a connection, rather than in the api's backlog, which would overflow. */
const agent = new Agent({ keepAlive: true, maxSockets: 256 });

/** Of a customer that was accepted. */
export interface Accepted {
  readonly id: string;
  /** When the whole answer was here, by this process's clock, in milliseconds. */
  readonly at: number;
}

/** `POST /customers` over a kept connection. @returns undefined for any other answer than 201, and for none */
export function post(url: string, mark: string): Promise<Accepted | undefined> {
  const body = JSON.stringify({ email: `${mark}@example.com`, name: `Customer ${mark}` });
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) };
  return new Promise((resolve) => {
    const fail = (): void => resolve(undefined);
    const sent = request(`${url}/customers`, { method: 'POST', agent, headers }, (response) => {
      response.resume().once('error', fail);
      response.once('end', () => {
        const id = response.headers.location?.split('/').at(-1);
        resolve(response.statusCode === 201 && id !== undefined ? { id, at: performance.now() } : undefined);
      });
    });
    sent.once('error', fail).end(body);
  });
}
