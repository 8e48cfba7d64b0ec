/*
 * What the memory of this process looks like, without changing it: the VMAs from /proc/self/smaps, the state of each page
 * from /proc/self/pagemap, and the contents of those that are there and may be read. Absent pages are not touched.
 */
#include "peer.h"
#include <sys/ioctl.h>

#define PERM_READ 1
#define PERM_WRITE 2
#define PERM_EXEC 4
#define PERM_SHARED 8

#define PM_PRESENT (1ULL << 63)
#define PM_SWAP (1ULL << 62)
#define PM_FILE (1ULL << 61)
#define PM_EXCLUSIVE (1ULL << 56)

#define PAGE_IS_PRESENT 1
#define PAGE_IS_SWAPPED 2
#define PAGE_IS_FILE 4
#define PAGE_IS_EXCLUSIVE 8
#define PAGE_IS_ZERO 16
#define PAGE_IS_HASHED 32

/* linux/fs.h of 6.7 and later; spelled out for older headers. */
struct scanRegion {
  uint64_t start, end, categories;
};
struct scanArg {
  uint64_t size, flags, start, end, walkEnd, vec, vecLen, maxPages, inverted, mask, anyof, returned;
};
#define SCAN _IOWR('f', 16, struct scanArg)
#define SCAN_PFNZERO (1 << 5)

/* Fields of smaps, in KiB, in the order of SMAPS_NAMES in trace.ts. */
static const char *const countNames[] = { "Rss:", "Pss:", "Anonymous:", "Locked:" };
#define NR_COUNTS 4

struct vma {
  uint32_t startPage, endPage, perms, vmFlags, counts[NR_COUNTS];
  uint64_t offset, inode;
};

static char text[1 << 17];
static uint64_t pagemap[MAX_WINDOW_PAGES];
static uint32_t hashes[MAX_WINDOW_PAGES];
static uint8_t states[MAX_WINDOW_PAGES];
static struct vma vmas[1024];
static int nrVmas;
static int smapsFd = -1, statusFd = -1, pagemapFd = -1, hasScan = 1;

static int openAgain(int old, const char *path) {
  if (old >= 0) close(old);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die(path);
  return fd;
}

void openProc(void) {
  smapsFd = openAgain(smapsFd, "/proc/self/smaps");
  statusFd = openAgain(statusFd, "/proc/self/status");
  pagemapFd = openAgain(pagemapFd, "/proc/self/pagemap");
}

static void readText(int fd) {
  size_t len = 0;
  ssize_t n;
  while ((n = pread(fd, text + len, sizeof text - 1 - len, (off_t)len)) > 0) len += (size_t)n;
  if (n < 0) die("read of /proc");
  if (len == sizeof text - 1) die("too much in /proc");
  text[len] = 0;
}

static int64_t field(const char *from, const char *name) {
  const char *at = strstr(from, name);
  return at == NULL ? -1 : strtol(at + strlen(name), NULL, 10) / (PAGE / 1024);
}

static int64_t locked;

static void readStatus(struct base *into) {
  readText(statusFd);
  into->total = field(text, "\nVmSize:");
  into->data = field(text, "\nVmData:");
  locked = field(text, "\nVmLck:");
}

void readBase(void) { readStatus(&base); }

static const char *const flagNames[] = { "lo", "lf", "dc", "sr", "rr", "mg", "nr", "ac", "wf", "dd" };

static uint32_t parseFlags(const char *at, const char *end) {
  uint32_t flags = 0;
  for (; at + 1 < end; at += 3)
    for (unsigned i = 0; i < sizeof flagNames / sizeof *flagNames; i++)
      if (at[0] == flagNames[i][0] && at[1] == flagNames[i][1]) flags |= 1U << i;
  return flags;
}

/* start-end perms offset dev inode path */
static int parseHeader(const char *line, struct vma *vma) {
  char *at;
  uint64_t start = strtoul(line, &at, 16), end = strtoul(at + 1, &at, 16);
  uint64_t first = (uint64_t)windowStart();
  if (start < first || start >= first + program.windowPages * PAGE) return 0;
  memset(vma, 0, sizeof *vma);
  vma->startPage = (uint32_t)((start - first) / PAGE);
  vma->endPage = (uint32_t)((end - first) / PAGE);
  vma->perms = (at[1] == 'r') | (at[2] == 'w') << 1 | (at[3] == 'x') << 2 | (at[4] == 's') << 3;
  vma->offset = strtoul(at + 6, &at, 16);
  vma->inode = strtoul(strchr(at + 1, ' '), NULL, 10);
  for (int i = 0; i < NR_FILES; i++)
    if (vma->inode != 0 && vma->inode == fileInode[i]) {
      vma->inode = (uint64_t)i + 1;
      break;
    }
  return 1;
}

static void parseField(const char *line, const char *end, struct vma *vma) {
  if (strncmp(line, "VmFlags:", 8) == 0) vma->vmFlags = parseFlags(line + 9, end);
  for (int i = 0; i < NR_COUNTS; i++) {
    size_t len = strlen(countNames[i]);
    if (strncmp(line, countNames[i], len) == 0) vma->counts[i] = (uint32_t)strtoul(line + len, NULL, 10);
  }
}

static void readVmas(void) {
  int inside = 0;
  readText(smapsFd);
  nrVmas = 0;
  for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
    if (line[0] >= 'A' && line[0] <= 'Z') {
      if (inside) parseField(line, end, &vmas[nrVmas - 1]);
    } else {
      if (nrVmas == 1024) die("too many VMAs");
      inside = parseHeader(line, &vmas[nrVmas]);
      nrVmas += inside;
    }
  }
}

static void readPages(void) {
  off_t first = (off_t)((uint64_t)windowStart() / PAGE * 8);
  size_t len = program.windowPages * 8;
  if (pread(pagemapFd, pagemap, len, first) != (ssize_t)len) die("pagemap");
  for (uint32_t i = 0; i < program.windowPages; i++) {
    uint64_t entry = pagemap[i];
    states[i] = (uint8_t)((entry & PM_PRESENT ? PAGE_IS_PRESENT : 0) | (entry & PM_SWAP ? PAGE_IS_SWAPPED : 0) |
                          (entry & PM_FILE ? PAGE_IS_FILE : 0) | (entry & PM_EXCLUSIVE ? PAGE_IS_EXCLUSIVE : 0));
    hashes[i] = 0;
  }
}

/* Pages at which the zero page is mapped. Older kernels cannot tell: bit 31 of the number of pages says so. */
static void markZeroPages(void) {
  static struct scanRegion regions[MAX_WINDOW_PAGES / 2];
  uint64_t first = (uint64_t)windowStart();
  struct scanArg arg = { .size = sizeof arg, .start = first, .end = first + program.windowPages * PAGE,
    .vec = (uint64_t)regions, .vecLen = MAX_WINDOW_PAGES / 2, .mask = SCAN_PFNZERO, .returned = SCAN_PFNZERO };
  if (!hasScan) return;
  int n = ioctl(pagemapFd, SCAN, &arg);
  if (n < 0) hasScan = 0;
  for (int i = 0; i < n; i++)
    for (uint64_t at = regions[i].start; at < regions[i].end; at += PAGE) states[(at - first) / PAGE] |= PAGE_IS_ZERO;
}

static uint64_t rotl(uint64_t x, int n) { return x << n | x >> (64 - n); }

#define PRIME1 0x9e3779b185ebca87ULL
#define PRIME2 0xc2b2ae3d27d4eb4fULL
#define PRIME3 0x165667b19e3779f9ULL
#define PRIME4 0x85ebca77c2b2ae63ULL

static uint64_t round64(uint64_t lane, uint64_t input) { return rotl(lane + input * PRIME2, 31) * PRIME1; }

/* XXH64 of one page, seed 0. */
uint64_t hashPage(const void *page) {
  const uint64_t *word = page;
  uint64_t lane[4] = { PRIME1 + PRIME2, PRIME2, 0, -PRIME1 };
  for (int i = 0; i < PAGE / 8; i += 4)
    for (int k = 0; k < 4; k++) lane[k] = round64(lane[k], word[i + k]);
  uint64_t hash = rotl(lane[0], 1) + rotl(lane[1], 7) + rotl(lane[2], 12) + rotl(lane[3], 18);
  for (int k = 0; k < 4; k++) hash = (hash ^ round64(0, lane[k])) * PRIME1 + PRIME4;
  hash += PAGE;
  hash = (hash ^ hash >> 33) * PRIME2;
  hash = (hash ^ hash >> 29) * PRIME3;
  return hash ^ hash >> 32;
}

static void hashOne(void *arg) {
  uint32_t i = *(uint32_t *)arg;
  hashes[i] = (uint32_t)hashPage(windowStart() + i * PAGE);
}

static void hashPresent(void) {
  for (int v = 0; v < nrVmas; v++) {
    if ((vmas[v].perms & (PERM_READ | PERM_WRITE)) == 0) continue;
    for (uint32_t i = vmas[v].startPage; i < vmas[v].endPage && i < program.windowPages; i++) {
      if (!(states[i] & (PAGE_IS_PRESENT | PAGE_IS_SWAPPED))) continue;
      if (guarded(hashOne, &i) == 0) states[i] |= PAGE_IS_HASHED;
    }
  }
}

static void putRuns(void) {
  for (uint32_t i = 0, next; i < program.windowPages; i = next) {
    for (next = i + 1; next < program.windowPages && states[next] == states[i] && hashes[next] == hashes[i]; next++);
    put32(next - i);
    put32(states[i]);
    put32(hashes[i]);
  }
}

void observe(int proc) {
  struct base now;
  readStatus(&now);
  readVmas();
  readPages();
  markZeroPages();
  hashPresent();
  put32('O');
  put32((uint32_t)proc | (hasScan ? 0 : 1U << 31));
  put64(now.total - base.total);
  put64(now.data - base.data);
  put64(locked);
  put32((uint32_t)nrVmas);
  put(vmas, (size_t)nrVmas * sizeof *vmas);
  putRuns();
}
