import { Words } from '../mm/index.js';
import type { World } from './world.js';

/**
 * One preemption: while an access of the driver is under way, at the `k`-th point where the mm thread might come in between, a whole operation of
 * the mm runs. The points are where the driver enters and leaves `tryGetPage`, and, for a driver whose faults may run on another
 * thread, before each access to shared words outside of the mm and without a lock held, the taking of its own lock among them.
 *
 * WHY: the seam is patched, so that the driver is run as it is. More than one preemption, and any driver's threads, is the explorer's business.
 */
type Method = (this: unknown, ...args: number[]) => number;

const SEAM = [
  ...['readOnce', 'writeOnce', 'load', 'store', 'fetchAdd', 'fetchOr', 'fetchAnd'],
  ...['exchange', 'compareExchange', 'lock', 'unlock'],
] as const;

export class Interposer {
  /** Points met so far. */
  nrPoints = 0;
  private readonly world: World;
  private readonly at: number;
  private readonly operation: () => void;
  private insideMm = 0;
  private locksHeld = 0;
  private running = false;
  private error: unknown;
  private readonly undo: (() => void)[] = [];

  constructor(world: World, at: number, operation: () => void) {
    this.world = world;
    this.at = at;
    this.operation = operation;
  }

  /** Whether the operation has run. */
  get reached(): boolean {
    return this.nrPoints > this.at;
  }

  /** Runs `access` with the points in place. Rejects as it does, or as the operation does. */
  async around(access: () => Promise<void>): Promise<void> {
    this.patchMm();
    if (this.world.adapter.threads) this.patchSeam();
    try {
      await access();
    } finally {
      for (const restore of this.undo.splice(0)) restore();
    }
    if (this.error !== undefined) throw this.error;
  }

  private point(): void {
    if (this.running || this.insideMm > 0 || this.locksHeld > 0) return;
    if (this.nrPoints++ !== this.at) return;
    this.running = true;
    try {
      this.operation();
    } catch (error) {
      this.error = error;
    }
    this.running = false;
  }

  private patchMm(): void {
    const { mm } = this.world;
    const real = mm.tryGetPage;
    mm.tryGetPage = (va, flags) => {
      this.point();
      this.insideMm++;
      const pfn = real.call(mm, va, flags);
      this.insideMm--;
      this.point();
      return pfn;
    };
    this.undo.push(() => Reflect.deleteProperty(mm, 'tryGetPage'));
    for (const name of ['putPage', 'faultInSync'] as const) this.patchInside(name);
  }

  private patchInside(name: 'putPage' | 'faultInSync'): void {
    const { mm } = this.world;
    const real = mm[name] as Method;
    (mm as unknown as Record<string, Method>)[name] = (...args) => {
      this.insideMm++;
      try {
        return real.apply(mm, args);
      } finally {
        this.insideMm--;
      }
    };
    this.undo.push(() => Reflect.deleteProperty(mm, name));
  }

  private patchSeam(): void {
    const seam = Words.prototype as unknown as Record<string, Method>;
    for (const name of SEAM) {
      const real = seam[name]!;
      const self = this;
      seam[name] = function (...args) {
        if (!self.running) self.point();
        if (name === 'lock' && !self.running) self.locksHeld++;
        const result = real.apply(this, args);
        if (name === 'unlock' && !self.running) self.locksHeld--;
        return result;
      };
      this.undo.push(() => {
        seam[name] = real;
      });
    }
  }
}
