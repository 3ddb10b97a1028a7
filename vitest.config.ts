import { defineConfig } from 'vitest/config';

/** Test files that share real servers; each makes schemas and a vhost of its own, so they run side by side. */
const onServers = {
  globalSetup: './test/support/servers.ts',
  testTimeout: 60_000,
  hookTimeout: 120_000,
};

/** Each starts many processes, so few run side by side, and after the others. */
const faults = { testTimeout: 120_000, maxWorkers: 2, sequence: { groupOrder: 1 } };

export default defineConfig({
  // Workspace packages load from their sources; what they publish is built for others.
  ssr: { resolve: { conditions: ['oncebox-source'] } },
  test: {
    // They wait for servers more than they compute.
    maxWorkers: 4,
    projects: [
      { extends: true, test: { name: 'unit', include: ['{packages,apps}/*/src/**/*.test.ts', 'test/*.test.ts'] } },
      { extends: true, test: { name: 'integration', include: ['test/integration/**/*.test.ts'], ...onServers } },
      { extends: true, test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'], ...onServers } },
      { extends: true, test: { name: 'faults', include: ['test/faults/**/*.test.ts'], ...onServers, ...faults } },
    ],
  },
});
