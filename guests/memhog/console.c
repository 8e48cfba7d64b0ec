#include "console.h"
#include "outlet.h"

#include <stdarg.h>

static char line[256];
static u64 line_length;

static void put(char c)
{
	if (line_length < sizeof(line) - 1)
		line[line_length++] = c;
}

static void put_string(const char *text)
{
	while (*text)
		put(*text++);
}

static void put_number(u64 value, u64 base)
{
	char digits[20];
	int n = 0;

	do
		digits[n++] = "0123456789abcdef"[value % base];
	while ((value /= base) != 0);
	while (n > 0)
		put(digits[--n]);
}

static void put_formatted(const char *format, va_list args)
{
	for (; *format; format++) {
		if (*format != '%') {
			put(*format);
			continue;
		}
		if (*++format == 'l')
			format++;
		switch (*format) {
		case 's': put_string(va_arg(args, const char *)); break;
		case 'u': put_number(va_arg(args, u64), 10); break;
		case 'x': put_string("0x"), put_number(va_arg(args, u64), 16); break;
		default: put(*format);
		}
	}
}

static void print_line(const char *format, va_list args)
{
	line_length = 0;
	put_string(GUEST_NAME ": ");
	put_formatted(format, args);
	line[line_length++] = '\n';
	outlet_write(line, line_length);
}

void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_line(format, args);
	va_end(args);
}

void die(const char *format, ...)
{
	va_list args;

	outlet_quiet();
	va_start(args, format);
	print_line(format, args);
	va_end(args);
	outlet_fail();
}
