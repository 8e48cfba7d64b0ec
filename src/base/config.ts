/**
 * Build flags. A bundler replaces the global by a literal (esbuild: `--define:__CONFIG_PTE_NOTIFIERS__=false`) and
 * drops what is then dead; unbundled, all but the checks of debug builds is in.
 */
declare const __CONFIG_PTE_NOTIFIERS__: boolean | undefined;
declare const __CONFIG_LOCKDEP__: boolean | undefined;

/** The proposal's `CONFIG_PTE_NOTIFIERS`: false removes every notifier hook from the build. */
export const CONFIG_PTE_NOTIFIERS: boolean =
  typeof __CONFIG_PTE_NOTIFIERS__ === 'undefined' ? true : __CONFIG_PTE_NOTIFIERS__;

/** True checks locks and waits against lockorder.ts. A bundler defines it as false; a program without a bundler may set the global before. */
export const CONFIG_LOCKDEP: boolean = typeof __CONFIG_LOCKDEP__ === 'undefined' ? false : __CONFIG_LOCKDEP__;
