import { KernelError } from '../base/index.js';
import {
  type AdviseMrAdvice,
  IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT,
  IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE,
} from './constants.js';
import { installBehind, installPresent, serveFault } from './faults.js';
import type { Mr } from './mr.js';
import type { Sge } from './verbs.js';

/** `adviseMr`: entries before the network asks for them. */

/** Pages asked for at once. WHY: so many reads of the swap device are in flight. */
const WINDOW = 256;
/** Pages installed before others have their turn. */
const TURN_PAGES = 1024;

/** Rejects with KernelError EFAULT (no such page), ENOMEM. Ends without an error where the region ends. */
export async function adviseRegion(mr: Mr, sge: Sge, advice: AdviseMrAdvice): Promise<void> {
  if (sge.length === 0) return;
  const { device } = mr.context;
  const write = advice === IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE;
  const end = mr.pageOf(sge.addr + sge.length - 1) + 1;
  const counts = { minorFaults: 0, majorFaults: 0, retries: 0 };
  for (let page = mr.pageOf(sge.addr), nr = 0; page < end && mr.isLive; nr++) {
    if (nr % TURN_PAGES === TURN_PAGES - 1) await device.turn();
    let nrPages = advice === IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT ? Number(installPresent(mr, page)) : 0;
    if (advice !== IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT) {
      nrPages = installBehind(mr, page, Math.min(WINDOW, end - page), write);
      if (nrPages === 0) {
        const failure = await serveFault(mr, page, Math.min(WINDOW, end - page), write, counts, () => device.turn());
        if (failure !== undefined) refuse(mr, page, failure.error);
        nrPages = 1;
      }
    }
    mr.nrPrefetches += nrPages;
    device.counts.pagePrefetches += nrPages;
    page += Math.max(nrPages, 1);
  }
}

function refuse(mr: Mr, page: number, { code, message }: KernelError): never {
  throw new KernelError(
    code === 'ENOMEM' ? 'ENOMEM' : 'EFAULT',
    'adviseMr',
    `the page at 0x${mr.vaOf(page).toString(16)} of ${mr.mm.name} cannot be had: ${message}`,
  );
}
