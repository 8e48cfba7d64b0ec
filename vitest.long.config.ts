import { defineConfig } from 'vitest/config';
import { reporters } from './test/noskip.js';

export default defineConfig({
  define: { __CONFIG_LOCKDEP__: 'true' },
  test: {
    include: ['test/long/**/*.test.ts'],
    testTimeout: 3_600_000,
    hookTimeout: 3_600_000,
    maxWorkers: 1,
    reporters: reporters(),
  },
});
