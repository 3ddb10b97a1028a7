# One image per app: docker build --target api|relay|worker|migrate .
# Nothing is compiled: Node runs the TypeScript sources, which it does outside node_modules only, so the workspace's
# packages stay the links that npm makes of them.

# What npm ci depends on, apart from the sources, so that a change in a source does not install anything again.
FROM node:24-slim AS manifests
RUN --mount=type=bind,target=/src mkdir /app && cd /src && \
    cp --parents package.json package-lock.json packages/*/package.json apps/*/package.json /app

FROM node:24-slim AS workspace
WORKDIR /app
COPY --from=manifests /app ./

# Production dependencies of one app and of the packages it uses: the worker's carry no express.
FROM workspace AS api-modules
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --workspace=apps/api
FROM workspace AS relay-modules
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --workspace=apps/relay
FROM workspace AS worker-modules
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --workspace=apps/worker
FROM workspace AS migrate-modules
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev --workspace=apps/oncebox

FROM node:24-slim AS runtime
# What Node makes of the sources is kept in the image: stripping types at each start takes half a second and 30 MB. The cache
# is the user's who made it, and each image fills its own by a start that ends at once, for want of settings.
ENV NODE_ENV=production NODE_COMPILE_CACHE=/home/node/compile-cache
WORKDIR /app
USER node

# Health is /readyz rather than /livez, because `docker compose up --wait` is to end when the stack works. Docker restarts
# nothing that is unhealthy, so a server that is away for a while costs no process; an orchestrator that does restart
# should ask /livez.
FROM runtime AS api
COPY --from=api-modules /app ./
COPY packages packages
COPY apps/api apps/api
RUN node --conditions=oncebox-source --import @oncebox/service/tracing apps/api/src/main.ts 2>&1 | grep -q 'Invalid configuration'
EXPOSE 3000 3100
HEALTHCHECK --interval=3s --timeout=3s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.API_OPS_PORT ?? 3100}/readyz`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "--conditions=oncebox-source", "--import", "@oncebox/service/tracing", "apps/api/src/main.ts"]

FROM runtime AS relay
COPY --from=relay-modules /app ./
COPY packages packages
COPY apps/relay apps/relay
RUN node --conditions=oncebox-source --import @oncebox/service/tracing apps/relay/src/main.ts 2>&1 | grep -q 'Invalid configuration'
EXPOSE 3101
HEALTHCHECK --interval=3s --timeout=3s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.RELAY_OPS_PORT ?? 3101}/readyz`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# The limits make the collector tidy up early: 130 MB of memory in a drain instead of 300 (docs/decisions/0006-relay-drain.md).
CMD ["node", "--max-semi-space-size=8", "--max-old-space-size=512", "--conditions=oncebox-source", "--import", "@oncebox/service/tracing", "apps/relay/src/main.ts"]

FROM runtime AS worker
COPY --from=worker-modules /app ./
COPY packages packages
COPY apps/worker apps/worker
RUN node --conditions=oncebox-source --import @oncebox/service/tracing apps/worker/src/main.ts 2>&1 | grep -q 'Invalid configuration'
EXPOSE 3102
HEALTHCHECK --interval=3s --timeout=3s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.WORKER_OPS_PORT ?? 3102}/readyz`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "--conditions=oncebox-source", "--import", "@oncebox/service/tracing", "apps/worker/src/main.ts"]

# One-shot: brings the schemas and their users up to date and ends.
FROM runtime AS migrate
COPY --from=migrate-modules /app ./
COPY packages packages
COPY apps/oncebox apps/oncebox
COPY migrations migrations
CMD ["npm", "run", "--silent", "migrate"]
