import { defineConfig } from 'vitest/config';
import { reporters } from './test/noskip.js';

const NOT_IN_CI = ['balloon', 'debian-net', 'disk', 'eight', 'watchdogs'];

export default defineConfig({
  define: { __CONFIG_LOCKDEP__: 'true' },
  test: {
    include: ['test/long/**/*.test.ts'],
    // What does not fit into the time of CI: whole Debian systems beside the one that boots there.
    exclude: process.env.CI ? NOT_IN_CI.map((name) => `test/long/${name}.test.ts`) : [],
    testTimeout: 3_600_000,
    hookTimeout: 3_600_000,
    maxWorkers: 1,
    reporters: reporters(),
  },
});
