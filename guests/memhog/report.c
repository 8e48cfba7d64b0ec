#include "report.h"
#include "console.h"

static u64 nr_passes;

void report_init(u64 passes)
{
	nr_passes = passes;
}

void check_tally(const char *who, const struct tally *tally)
{
	if (tally->errors)
		die("FAILED: %s: %lu of %lu words wrong, the first at va %lx: read %lx, wrote %lx", who, tally->errors,
		    tally->words, tally->bad_va, tally->bad_read, tally->bad_want);
}

void report_pass(const char *who, u64 nr_pages, u64 pass, const struct tally *tally)
{
	check_tally(who, tally);
	say("%s: %lu pages, pass %lu/%lu ok", who, nr_pages, pass, nr_passes);
}
