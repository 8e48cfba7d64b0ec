#include "fdt.h"
#include "console.h"

/* Devicetree Specification 0.4, chapter 5. All words are big-endian. */
enum { FDT_BEGIN_NODE = 1, FDT_END_NODE = 2, FDT_PROP = 3, FDT_NOP = 4, FDT_END = 9 };
enum { HEADER_MAGIC = 0, HEADER_SIZE = 1, HEADER_STRUCT = 2, HEADER_STRINGS = 3, HEADER_RESERVATIONS = 4 };
#define FDT_MAGIC 0xd00dfeed
#define MAX_DEPTH 8

struct property { const char *name; const u8 *value; u32 length; };

/* Where the walk is: the names of the open nodes, and the cell sizes each of them sets for its children. */
struct place {
	int depth;
	const char *node[MAX_DEPTH];
	u32 address_cells[MAX_DEPTH], size_cells[MAX_DEPTH];
};

static u32 be32(const void *at)
{
	const u8 *b = at;

	return (u32)b[0] << 24 | (u32)b[1] << 16 | (u32)b[2] << 8 | b[3];
}

static u64 cells(const u8 *at, u32 n)
{
	u64 value = 0;

	for (u32 i = 0; i < n; i++)
		value = value << 32 | be32(at + 4 * i);
	return value;
}

static int equal(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* True when `name` is `base` or `base@unit`. */
static int is_node(const char *name, const char *base)
{
	while (*base && *name == *base)
		name++, base++;
	return *base == 0 && (*name == 0 || *name == '@');
}

void board_reserve(struct board *board, u64 start, u64 end)
{
	if (start == end)
		return;
	if (board->nr_reserved == MAX_RESERVED)
		die("device tree: more than %lu reserved ranges", (u64)MAX_RESERVED);
	board->reserved[board->nr_reserved++] = (struct range){ start, end };
}

/* The end of the reserved range that the page meets, or 0. */
static u64 reserved_until(const struct board *board, u64 page)
{
	for (u64 i = 0; i < board->nr_reserved; i++)
		if (page < board->reserved[i].end && page + PAGE_SIZE > board->reserved[i].start)
			return ALIGN_UP(board->reserved[i].end, PAGE_SIZE);
	return 0;
}

u64 board_skip_reserved(const struct board *board, u64 page)
{
	u64 end;

	while ((end = reserved_until(board, page)) != 0)
		page = end;
	return page;
}

/* A `reg` of the innermost node: its first pair only for memory (one bank), all pairs for reservations. */
static void read_reg(struct board *board, const struct place *at, const struct property *p)
{
	u32 na = at->address_cells[at->depth - 1], ns = at->size_cells[at->depth - 1];

	for (u32 i = 0; i + 4 * (na + ns) <= p->length; i += 4 * (na + ns)) {
		u64 start = cells(p->value + i, na), size = cells(p->value + i + 4 * na, ns);

		if (at->depth == 2)
			board_reserve(board, start, start + size);
		else if (board->memory.end == 0)
			board->memory = (struct range){ start, start + size };
	}
}

static void read_chosen(const struct property *p, struct board *board, struct range *initrd)
{
	if (equal(p->name, "bootargs"))
		board->bootargs = (const char *)p->value;
	else if (equal(p->name, "linux,initrd-start"))
		initrd->start = cells(p->value, p->length / 4);
	else if (equal(p->name, "linux,initrd-end"))
		initrd->end = cells(p->value, p->length / 4);
}

static void read_property(struct board *board, struct place *at, struct range *initrd, const struct property *p)
{
	if (equal(p->name, "#address-cells"))
		at->address_cells[at->depth] = be32(p->value);
	else if (equal(p->name, "#size-cells"))
		at->size_cells[at->depth] = be32(p->value);
	else if (at->depth == 1 && is_node(at->node[1], "memory") && equal(p->name, "reg"))
		read_reg(board, at, p);
	else if (at->depth == 1 && is_node(at->node[1], "chosen"))
		read_chosen(p, board, initrd);
	else if (at->depth >= 1 && is_node(at->node[1], "cpus") && equal(p->name, "timebase-frequency"))
		board->timebase_hz = cells(p->value, p->length / 4);
	else if (at->depth == 2 && is_node(at->node[1], "reserved-memory") && equal(p->name, "reg"))
		read_reg(board, at, p);
}

/* Opens the node whose name is at `name`; returns where its contents begin. */
static const u8 *begin_node(struct place *at, const char *name)
{
	const char *end = name;

	while (*end)
		end++;
	if (++at->depth >= MAX_DEPTH)
		die("device tree: deeper than %lu nodes", (u64)MAX_DEPTH);
	at->node[at->depth] = name;
	at->address_cells[at->depth] = 2;
	at->size_cells[at->depth] = 1;
	return (const u8 *)ALIGN_UP((u64)end + 1, 4);
}

static void walk(const u8 *structs, const char *strings, struct board *board, struct range *initrd)
{
	struct place at;

	at.depth = -1;
	for (;;) {
		u32 token = be32(structs);

		structs += 4;
		if (token == FDT_BEGIN_NODE) {
			structs = begin_node(&at, (const char *)structs);
		} else if (token == FDT_END_NODE) {
			at.depth--;
		} else if (token == FDT_PROP) {
			struct property p = { strings + be32(structs + 4), structs + 8, be32(structs) };

			read_property(board, &at, initrd, &p);
			structs += ALIGN_UP(8 + (u64)p.length, 4);
		} else if (token == FDT_END) {
			return;
		} else if (token != FDT_NOP) {
			die("device tree: token %lx is none", (u64)token);
		}
	}
}

void fdt_read(const void *blob, struct board *board)
{
	const u8 *base = blob;
	struct range initrd = { 0, 0 };

	if (be32(base) != FDT_MAGIC)
		die("device tree: magic at %lx is %lx", (u64)blob, (u64)be32(base));
	board->bootargs = "";
	board_reserve(board, (u64)base, (u64)base + be32(base + 4 * HEADER_SIZE));
	for (const u8 *r = base + be32(base + 4 * HEADER_RESERVATIONS); cells(r + 8, 2) != 0; r += 16)
		board_reserve(board, cells(r, 2), cells(r, 2) + cells(r + 8, 2));
	walk(base + be32(base + 4 * HEADER_STRUCT), (const char *)base + be32(base + 4 * HEADER_STRINGS), board, &initrd);
	board_reserve(board, initrd.start, initrd.end);
	if (board->memory.end == 0 || board->timebase_hz == 0)
		die("device tree: no /memory or no timebase-frequency");
}
