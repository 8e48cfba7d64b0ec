/*
 * The parts of the work, in the order of their bits. X_prepare is called by the boot hart alone, X_run by all harts at once, X_finish by the boot hart when all are
 * through; it returns the part's word of the checksum, which depends on the parameters and the number of harts alone. Each FAILs by itself.
 */
#ifndef SMPHOG_PART_H
#define SMPHOG_PART_H
#include "smp.h"

struct plan { u64 rounds, seed, nr_fill_pages, flip, ram_start, alias; };

/* No table of pointers: the image holds no address. */
#define PARTS(X) X(counters) X(litmus) X(ring) X(remap) X(dirty) X(code) X(ipi) X(mega) X(fill) X(hsm) X(balloon) X(alias)

#define DECLARE_PART(name) \
	void name##_prepare(const struct plan *plan); \
	void name##_run(struct hart *me); \
	u64 name##_finish(void);
PARTS(DECLARE_PART)

#endif
