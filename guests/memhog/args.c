#include "args.h"
#include "console.h"

/* The value of a digit, or a number above any base. */
static u64 digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? (u64)(c - 'a' + 10) : ~0ul;
}

static u64 parse(const char *name, const char *text)
{
	u64 base = text[0] == '0' && (text[1] | 0x20) == 'x' ? 16 : 10, value = 0;
	const char *digit = base == 16 ? text + 2 : text;

	do {
		if (digit_value(*digit) >= base)
			die("%s must be a number", name);
		value = value * base + digit_value(*digit++);
	} while (*digit && *digit != ' ');
	return value;
}

u64 arg_number(const char *bootargs, const char *name, u64 fallback)
{
	for (const char *arg = bootargs; *arg; arg++) {
		const char *a = arg, *n = name;

		if (arg != bootargs && arg[-1] != ' ')
			continue;
		while (*n && *a == *n)
			a++, n++;
		if (*n == 0)
			return parse(name, a);
	}
	return fallback;
}
