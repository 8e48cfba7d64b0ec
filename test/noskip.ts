import type { Reporter, TestCase, TestModule } from 'vitest/node';

/**
 * A reporter for machines that have all the tools that the tests use (UNPIN_NO_SKIP=1, as in `.ci/run`): a test that is skipped because
 * one is absent fails the run. One that says why else it cannot run here (`context.skip(condition, why)`: no mounts in this
 * container, a compiler of another version) is named.
 */
export default class NoSkip implements Reporter {
  onTestRunEnd(testModules: readonly TestModule[]): void {
    for (const testModule of testModules) {
      for (const test of testModule.children.allTests('skipped')) judge(testModule, test);
    }
  }
}

function judge(testModule: TestModule, test: TestCase): void {
  const result = test.result();
  const why = (result.state === 'skipped' && result.note) || 'not installed';
  process.stderr.write(`UNPIN_NO_SKIP: skipped ${testModule.relativeModuleId} > ${test.fullName}: ${why}\n`);
  if (why.includes('not installed')) process.exitCode = 1;
}

/** The reporters of a run. */
export function reporters(): string[] {
  return process.env.UNPIN_NO_SKIP === '1' ? ['default', './test/noskip.ts'] : ['default'];
}
