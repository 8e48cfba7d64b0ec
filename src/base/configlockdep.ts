/** Apart from config.ts: esbuild takes only the first constant of a file for one in other files. */
declare const __CONFIG_LOCKDEP__: boolean | undefined;

/** True checks locks and waits against lockorder.ts. A bundler defines it as false; a program without a bundler may set the global before. */
export const CONFIG_LOCKDEP: boolean = typeof __CONFIG_LOCKDEP__ === 'undefined' ? false : __CONFIG_LOCKDEP__;
