/** What a VM needs of Node: see kvm's Environment. */
export function nodeEnvironment() {
  return {
    hostIsTso: process.arch === 'x64' || process.arch === 'ia32',
    nowMs: () => performance.now(),
    defer: (fn: () => void) => {
      setImmediate(fn);
    },
    setTimer: (fn: () => void, ms: number) => {
      const timer = setTimeout(fn, ms);
      return () => clearTimeout(timer);
    },
  };
}
