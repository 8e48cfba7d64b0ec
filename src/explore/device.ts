/**
 * Devices of explored programs. What a device does happens by itself, at a time that nobody knows: under the explorer it is an event, which
 * the scheduler may place anywhere after it was asked for. Outside of the explorer it happens soon.
 *
 * Use: `await transfer('disk read', () => frame.set(block))`; or `slow(swap, 'read', 'write')` for a device that is there already.
 */

declare const __x: { event(name: string, body: () => unknown): Promise<unknown> } | undefined;

/** `body` is done in one step and must not wait. Resolves with what it returns, rejects with what it throws. */
export function transfer<T>(name: string, body: () => T | Promise<T>): Promise<T> {
  if (typeof __x !== 'undefined') return __x.event(`(${name})`, body) as Promise<T>;
  return Promise.resolve().then(body);
}

/** A device whose asynchronous methods of these names do their work, and settle, when the scheduler says so. */
export function slow<D extends object>(device: D, ...methods: (keyof D & string)[]): D {
  const result = Object.create(device) as D;
  for (const name of methods) {
    const method = device[name] as (...args: unknown[]) => unknown;
    const value = (...args: unknown[]) => transfer(name, () => method.apply(device, args));
    Object.defineProperty(result, name, { value });
  }
  return result;
}
