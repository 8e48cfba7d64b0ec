/** Shadow entries: pfn in bits 31..12, and these. The rights are the guest's own, less what the direct entry lacks. */
export const SPTE_V = 1;
export const SPTE_R = 2;
export const SPTE_W = 4;
export const SPTE_X = 8;
export const SPTE_U = 16;
/** The guest's pte is global: the translation is that of all address spaces. */
export const SPTE_G = 32;
/** Set when a translation through the entry is handed out; taken by aging. */
export const SPTE_A = 64;
