import { defineConfig } from 'vitest/config';
import { reporters } from './test/noskip.js';

export default defineConfig({
  define: { __CONFIG_LOCKDEP__: 'true' },
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/long/**'],
    testTimeout: 60_000,
    maxWorkers: 2,
    reporters: reporters(),
  },
});
