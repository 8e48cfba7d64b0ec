/** One kernel under both drivers: how `unpin` is asked for it. */

export type Driver = 'lguest' | 'kvm';
export const DRIVERS: readonly Driver[] = ['lguest', 'kvm'];

const VERBS: Record<Driver, readonly string[]> = {
  lguest: ['lguest', '--memlock', '1G'],
  // On one thread, as lguest's are.
  kvm: ['boot', '--kernel', 'guests/images/forkhog-native.img', '--no-threads'],
};

/** Arguments of `unpin` for guests with this kernel command line; neither has a disk to work on. */
export function guestArgs(driver: Driver, append: string): string[] {
  return [...VERBS[driver], '--append', `${append} blocks=0`];
}
