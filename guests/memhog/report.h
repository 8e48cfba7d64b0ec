/* Progress and verdicts. */
#ifndef MEMHOG_REPORT_H
#define MEMHOG_REPORT_H
#include "work.h"

void report_init(u64 passes);
void report_pass(const char *who, u64 nr_pages, u64 pass, const struct tally *tally);
/* Dies with what and where when a word was wrong. */
void check_tally(const char *who, const struct tally *tally);

#endif
