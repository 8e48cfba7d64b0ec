import { bug } from '../base/index.js';
import { FAULT_FLAG_WRITE, FAULT_RETRY } from '../mm/index.js';
import {
  ACCESS_EXEC,
  ACCESS_READ,
  ACCESS_WRITE,
  type Hart,
  type HartMmu,
  MMU_ACCESS_FAULT,
  MMU_MMIO,
  MMU_OK,
  MMU_WAIT,
  RIGHT_R,
  RIGHT_W,
  RIGHT_X,
  Sv39Walk,
  WALK_OK,
} from '../riscv/index.js';
import { DIRECT_A, DIRECT_V, DIRECT_W, type Memslot } from './memslot.js';
import { type ShadowRoot, SPTE_R, SPTE_U, SPTE_W, SPTE_X } from './shadow.js';
import type { Vm } from './vm.js';

export { bug };
