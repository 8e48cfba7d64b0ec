/**
 * Build flags. A bundler replaces the global by a literal (esbuild: `--define:__CONFIG_PTE_NOTIFIERS__=false`) and
 * drops what is then dead (esbuild all of it when the bundle goes through it once more); unbundled, all but the checks of debug builds is in.
 */
declare const __CONFIG_PTE_NOTIFIERS__: boolean | undefined;

/** The proposal's `CONFIG_PTE_NOTIFIERS`: false removes every notifier hook from the build. */
export const CONFIG_PTE_NOTIFIERS: boolean =
  typeof __CONFIG_PTE_NOTIFIERS__ === 'undefined' ? true : __CONFIG_PTE_NOTIFIERS__;
