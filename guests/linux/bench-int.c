/* Integer programs: matrix product, CRC-32, merge sort of a linked list, a state machine over text. Use: bench-int [NAME] */
#include "bench.h"

#include <stdlib.h>

enum { MATRIX = 320, CRC_BYTES = 1 << 20, CRC_ROUNDS = 48, LIST_NODES = 1 << 16, LIST_ROUNDS = 10, TEXT = 1 << 20, TEXT_ROUNDS = 32 };

static uint64_t matmul(void)
{
	static int32_t a[MATRIX][MATRIX], b[MATRIX][MATRIX], c[MATRIX][MATRIX];
	uint64_t random = 1, sum = 0;

	for (int i = 0; i < MATRIX; i++)
		for (int j = 0; j < MATRIX; j++)
			a[i][j] = (int32_t)next_random(&random), b[i][j] = (int32_t)next_random(&random);
	for (int i = 0; i < MATRIX; i++)
		for (int j = 0; j < MATRIX; j++) {
			uint32_t dot = 0;

			for (int k = 0; k < MATRIX; k++)
				dot += (uint32_t)a[i][k] * (uint32_t)b[k][j];
			c[i][j] = (int32_t)dot;
		}
	for (int i = 0; i < MATRIX; i++)
		for (int j = 0; j < MATRIX; j++)
			sum = sum * 31 + (uint32_t)c[i][j];
	return sum;
}

static uint64_t crc32(void)
{
	static uint8_t bytes[CRC_BYTES];
	uint32_t table[256], crc = ~0u;
	uint64_t random = 2;

	for (uint32_t i = 0; i < 256; i++) {
		table[i] = i;
		for (int bit = 0; bit < 8; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320 : 0);
	}
	for (int i = 0; i < CRC_BYTES; i++)
		bytes[i] = (uint8_t)next_random(&random);
	for (int round = 0; round < CRC_ROUNDS; round++)
		for (int i = 0; i < CRC_BYTES; i++)
			crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 0xff];
	return ~crc;
}

struct node { struct node *next; uint32_t key; };

static struct node *merge(struct node *a, struct node *b)
{
	struct node *head = NULL, **tail = &head;

	while (a != NULL && b != NULL) {
		struct node **least = a->key <= b->key ? &a : &b;

		*tail = *least;
		tail = &(*tail)->next;
		*least = (*least)->next;
	}
	*tail = a != NULL ? a : b;
	return head;
}

static struct node *sort(struct node *head)
{
	struct node *slow = head, *fast, *second;

	if (head == NULL || head->next == NULL)
		return head;
	for (fast = head->next; fast != NULL && fast->next != NULL; fast = fast->next->next)
		slow = slow->next;
	second = slow->next;
	slow->next = NULL;
	return merge(sort(head), sort(second));
}

static uint64_t list_sort(void)
{
	static struct node nodes[LIST_NODES];
	uint64_t random = 3, sum = 0;

	for (int round = 0; round < LIST_ROUNDS; round++) {
		struct node *head = NULL;

		for (int i = 0; i < LIST_NODES; i++) {
			nodes[i] = (struct node){ head, (uint32_t)next_random(&random) };
			head = &nodes[i];
		}
		for (head = sort(head); head != NULL; head = head->next)
			sum = sum * 31 + head->key;
	}
	return sum;
}

/* Counts words, numbers and quoted strings, as the first stage of a parser does. */
static uint64_t scan(const char *text, uint64_t length)
{
	enum { SPACE, WORD, NUMBER, QUOTED, ESCAPED } state = SPACE;
	uint64_t words = 0, numbers = 0, strings = 0;

	for (uint64_t i = 0; i < length; i++) {
		char c = text[i];

		switch (state) {
		case QUOTED:
			state = c == '\\' ? ESCAPED : c == '"' ? SPACE : QUOTED;
			break;
		case ESCAPED:
			state = QUOTED;
			break;
		case WORD:
			if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
				break;
			/* fall through */
		case NUMBER:
			if (state == NUMBER && c >= '0' && c <= '9')
				break;
			/* fall through */
		case SPACE:
			if (c >= 'a' && c <= 'z')
				state = WORD, words++;
			else if (c >= '0' && c <= '9')
				state = NUMBER, numbers++;
			else if (c == '"')
				state = QUOTED, strings++;
			else
				state = SPACE;
		}
	}
	return words << 42 | numbers << 21 | strings;
}

static uint64_t state_machine(void)
{
	static char text[TEXT];
	static const char alphabet[] = "etaoinshrdlu  0123456789  \"\\,;\n";
	uint64_t random = 4, sum = 0;

	for (int i = 0; i < TEXT; i++)
		text[i] = alphabet[next_random(&random) % (sizeof(alphabet) - 1)];
	for (int round = 0; round < TEXT_ROUNDS; round++) {
		text[round * 31] = 'x';
		sum = sum * 31 + scan(text, TEXT);
	}
	return sum;
}

int main(int argc, char **argv)
{
	const char *only = argc > 1 ? argv[1] : NULL;

	bench_init("bench-int");
	measure(only, "matmul", matmul, 0x3205270c997d66c5);
	measure(only, "crc32", crc32, 0xe1083349);
	measure(only, "list-sort", list_sort, 0x12f685078d8d7478);
	measure(only, "state-machine", state_machine, 0x5db75485c9d54bf);
	return bench_status();
}
