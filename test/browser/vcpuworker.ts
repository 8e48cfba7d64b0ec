import { runVcpuThread, type VcpuThreadInit } from '../../src/kvm/index.js';

/** The script of a vCPU's thread in a browser. Says 'posted' when it has come out, and 'ended' when it is done for. */

interface Scope {
  onmessage: ((event: { data: VcpuThreadInit }) => void) | undefined;
  postMessage(word: 'posted' | 'ended'): void;
}
const scope = globalThis as unknown as Scope;

scope.onmessage = ({ data }) => {
  runVcpuThread(
    data,
    () => performance.timeOrigin + performance.now(),
    () => scope.postMessage('posted'),
  );
  scope.postMessage('ended');
};
