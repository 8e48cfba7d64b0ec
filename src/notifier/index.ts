/** The pte notifiers of the 2007 proposal, under its own names: see docs/patch-2007.md. */

export { CONFIG_PTE_NOTIFIERS } from '../base/index.js';
export {
  PteNotifier,
  type PteNotifierOps,
  type PteNotifierOptions,
  pteNotifierReadBegin,
  pteNotifierReadRetry,
} from './ptenotifier.js';
export { pteNotifierRegister, pteNotifierUnpin, pteNotifierUnregister } from './register.js';
export { pteNotifierCall, vmaClosePteNotifiers, vmaDestroyPteNotifiers, vmaInitPteNotifiers } from './vma.js';
