/*
 * A program for the Cortex-M0+ of an RP2040 that has more RAM than the chip: fills an array with pseudo-random words, sorts it in
 * place (quicksort, insertion sort for short runs), and prints a checksum that depends on the order.
 *
 * Entered at its first byte with the array in r0, its number of words in r1 and a stack in sp; ends at `bkpt 0`. Prints on UART0.
 * Built by examples/rp2040/build into sort.bin; it runs at the start of flash.
 */
typedef unsigned int u32;

#define UART0_DR (*(volatile u32 *)0x40034000)
#define SHORT_RUN 8

void program(u32 *words, u32 nr);

/* What it does before there is a C environment: nothing is needed but the stack. */
__attribute__((naked, section(".start"))) void start(void) { __asm__("bl program\n\tbkpt #0"); }

static void put(const char *text) {
  while (*text) UART0_DR = *text++;
}

static void putHex(u32 value) {
  for (int shift = 28; shift >= 0; shift -= 4) UART0_DR = "0123456789abcdef"[(value >> shift) & 15];
}

static void fill(u32 *words, u32 nr) {
  u32 x = 2463534242u;
  for (u32 i = 0; i < nr; i++) {
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    words[i] = x;
  }
}

static void insertionSort(u32 *first, u32 *last) {
  for (u32 *p = first + 1; p <= last; p++) {
    u32 value = *p, *q = p;
    for (; q > first && q[-1] > value; q--) *q = q[-1];
    *q = value;
  }
}

/* Hoare's partition around the middle word; returns the last of the left part. */
static u32 *partition(u32 *first, u32 *last) {
  u32 pivot = first[(last - first) / 2];
  for (first--, last++;;) {
    do first++;
    while (*first < pivot);
    do last--;
    while (*last > pivot);
    if (first >= last) return last;
    u32 swapped = *first;
    *first = *last;
    *last = swapped;
  }
}

/* Sorts [first, last]; recurs into the shorter part, so the stack stays short. */
static void sort(u32 *first, u32 *last) {
  while (last - first >= SHORT_RUN) {
    u32 *middle = partition(first, last);
    if (middle - first < last - middle) {
      sort(first, middle);
      first = middle + 1;
    } else {
      sort(middle + 1, last);
      last = middle;
    }
  }
  insertionSort(first, last);
}

/* Each word times its place, and whether they ascend. */
static u32 check(const u32 *words, u32 nr, u32 *nrWrong) {
  u32 sum = 0;
  for (u32 i = 0; i < nr; i++) {
    sum += words[i] * (2 * i + 1);
    if (i > 0 && words[i - 1] > words[i]) ++*nrWrong;
  }
  return sum;
}

void program(u32 *words, u32 nr) {
  u32 nrWrong = 0;
  fill(words, nr);
  sort(words, words + nr - 1);
  u32 sum = check(words, nr, &nrWrong);
  put("sorted 0x");
  putHex(nr);
  put(" words, 0x");
  putHex(nrWrong);
  put(" out of order, checksum 0x");
  putHex(sum);
  put("\n");
}
