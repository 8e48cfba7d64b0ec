/* What trap.c calls for a software interrupt. */
#ifndef SMPHOG_IPI_H
#define SMPHOG_IPI_H
#include "smp.h"

void ipi_take(struct hart *me);

#endif
