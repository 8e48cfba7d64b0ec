import type { Reporter, TestModule } from 'vitest/node';

/**
 * A reporter for machines that have all that the tests can use (UNPIN_NO_SKIP=1, as in `.ci/run`): a skipped test fails the run.
 */
export default class NoSkip implements Reporter {
  onTestRunEnd(testModules: readonly TestModule[]): void {
    for (const testModule of testModules) {
      for (const test of testModule.children.allTests('skipped')) {
        const result = test.result();
        const why = result.state === 'skipped' && result.note ? `: ${result.note}` : '';
        process.stderr.write(`UNPIN_NO_SKIP: skipped ${testModule.relativeModuleId} > ${test.fullName}${why}\n`);
        process.exitCode = 1;
      }
    }
  }
}

/** The reporters of a run. */
export function reporters(): string[] {
  return process.env.UNPIN_NO_SKIP === '1' ? ['default', './test/noskip.ts'] : ['default'];
}
