import { KernelError } from '../base/index.js';
import type { Model } from './model.js';

/** Throws KernelError EINVAL for a model that cannot be run. */
export function checkModel(model: Model<unknown>): void {
  const names = Object.keys(model.actors);
  if (names.length < 1 || names.length > 26)
    throw new KernelError(
      'EINVAL',
      'explore',
      `model '${model.name}' has ${names.length} actors; it must have 1 to 26`,
    );
  for (const name of model.threads?.flat() ?? []) {
    if (!names.includes(name))
      throw new KernelError(
        'EINVAL',
        'explore',
        `threads of '${model.name}' name '${name}', which must be one of ${names.join(', ')}`,
      );
  }
}
