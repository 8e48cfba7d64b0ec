// What a fault of a guest costs Linux's KVM: the peer of bench/kvm.
//
// A guest of one program in user mode, in long mode with page tables of its own, reads one byte of each page of a stretch. The pages are in
// the host's page table, and KVM has no entry of its own for them: mprotect has taken these, and the notifier with them. User mode, since
// a KVM that shares the processor's rings with its guests (kvm_pvm) runs only that natively, and emulates the rest instruction by instruction.
//
// Lines in:  about            which KVM, with which page tables
//            sequential N     N pages, one after the other: KVM enters the neighbours of a page with it, where it pages by shadow tables
//            each N           N pages, eight pages apart, so that each costs a fault of its own
//            resident N       N pages in sequence that have their entries
// Lines out: nanoseconds of processor time and faults taken, of all N; or `absent REASON`.
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES_FROM = 16 << 20, RAM = 160 << 20, TABLES = 1 << 20, CODE = 0x8000, PREFETCHED = 8 };

static uint8_t *ram;
static int vcpu, stats;
static struct kvm_run *run;

static void absent(const char *what) {
  char line[256];
  while (fgets(line, sizeof line, stdin)) {
    printf("absent %s: %s\n", what, strerror(errno));
    fflush(stdout);
  }
  exit(0);
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

// movb (%rdi), %al; add %rsi, %rdi; dec %rcx; jnz; out: an exit to us.
static const uint8_t code[] = {0x8a, 0x07, 0x48, 0x01, 0xf7, 0x48, 0xff, 0xc9, 0x75, 0xf6, 0xe6, 0x10};

// Virtual is physical, in pages of 4 KiB.
static void make_guest(void) {
  uint64_t *pml4 = (uint64_t *)(ram + 0x1000), *pdpt = (uint64_t *)(ram + 0x2000), *pd = (uint64_t *)(ram + 0x3000);
  pml4[0] = 0x2007;
  pdpt[0] = 0x3007;
  for (uint64_t i = 0; i < RAM >> 21; i++) pd[i] = (TABLES + i * PAGE) | 7;
  uint64_t *ptes = (uint64_t *)(ram + TABLES);
  for (uint64_t i = 0; i < RAM / PAGE; i++) ptes[i] = i * PAGE | 0x67; // present, writable, user, accessed, dirty
  memcpy(ram + CODE, code, sizeof code);
}

static void user_mode(void) {
  struct kvm_sregs s;
  if (ioctl(vcpu, KVM_GET_SREGS, &s)) absent("KVM_GET_SREGS");
  struct kvm_segment segment = {.limit = ~0u, .selector = 0x33, .type = 11, .present = 1, .dpl = 3, .s = 1, .l = 1, .g = 1};
  s.cs = segment;
  segment.selector = 0x2b, segment.type = 3, segment.l = 0, segment.db = 1;
  s.ds = s.es = s.fs = s.gs = s.ss = segment;
  s.cr3 = 0x1000, s.cr4 = 0x20, s.cr0 = 0x80050033, s.efer = 0x501;
  if (ioctl(vcpu, KVM_SET_SREGS, &s)) absent("KVM_SET_SREGS");
}

static void open_kvm(void) {
  int kvm = open("/dev/kvm", O_RDWR);
  if (kvm < 0) absent("/dev/kvm");
  int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  if (vm < 0) absent("KVM_CREATE_VM");
  ram = mmap(0, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  madvise(ram, RAM, MADV_NOHUGEPAGE);
  memset(ram, 1, RAM);
  memset(ram, 0, PAGES_FROM);
  struct kvm_userspace_memory_region region = {.memory_size = RAM, .userspace_addr = (uint64_t)ram};
  if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region)) absent("KVM_SET_USER_MEMORY_REGION");
  vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
  if (vcpu < 0) absent("KVM_CREATE_VCPU");
  run = mmap(0, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
  static struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid = {.head = {.nent = 256}};
  if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) || ioctl(vcpu, KVM_SET_CPUID2, &cpuid)) absent("KVM_SET_CPUID2");
  stats = ioctl(vcpu, KVM_GET_STATS_FD, 0);
  if (stats < 0) absent("KVM_GET_STATS_FD");
  make_guest();
  user_mode();
}

static uint64_t stat_of(const char *name) {
  struct kvm_stats_header head;
  struct { struct kvm_stats_desc desc; char name[64]; } d;
  if (pread(stats, &head, sizeof head, 0) != sizeof head) return 0;
  for (uint32_t i = 0; i < head.num_desc; i++) {
    size_t len = sizeof d.desc + head.name_size;
    uint64_t value;
    if (len > sizeof d || pread(stats, &d, len, head.desc_offset + i * len) < 0) return 0;
    if (strcmp(d.name, name) == 0 && pread(stats, &value, 8, head.data_offset + d.desc.offset) == 8) return value;
  }
  return 0;
}

static uint64_t touch(uint64_t pages, uint64_t stride) {
  struct kvm_regs r = {.rip = CODE, .rdi = PAGES_FROM, .rsi = stride * PAGE, .rcx = pages, .rflags = 0x3002};
  ioctl(vcpu, KVM_SET_REGS, &r);
  uint64_t begin = now();
  int failed = ioctl(vcpu, KVM_RUN, 0);
  uint64_t ns = now() - begin;
  if (failed || run->exit_reason != KVM_EXIT_IO) {
    fprintf(stderr, "kvm.c: the guest ended with exit %u\n", run->exit_reason);
    exit(1);
  }
  return ns;
}

static void take_entries(void) {
  mprotect(ram + PAGES_FROM, RAM - PAGES_FROM, PROT_NONE);
  mprotect(ram + PAGES_FROM, RAM - PAGES_FROM, PROT_READ | PROT_WRITE);
}

static void about(void) {
  const char *names[] = {"kvm_intel/parameters/ept", "kvm_amd/parameters/npt", "kvm_pvm/parameters/pvm_native"};
  const char *what[] = {"kvm_intel, ept=", "kvm_amd, npt=", "kvm_pvm: shadow page tables; pvm_native="};
  for (int i = 0; i < 3; i++) {
    char path[128], value[8] = "";
    snprintf(path, sizeof path, "/sys/module/%s", names[i]);
    FILE *f = fopen(path, "r");
    if (f && fgets(value, sizeof value, f)) {
      value[strcspn(value, "\n")] = 0;
      printf("%s%s\n", what[i], value);
      fclose(f);
      return;
    }
  }
  puts("an unknown module");
}

int main(void) {
  setvbuf(stdout, 0, _IOLBF, 0);
  open_kvm();
  touch(1, 1); // the way in and out
  char line[256], operation[32];
  long pages;
  while (fgets(line, sizeof line, stdin)) {
    if (strcmp(line, "about\n") == 0) {
      about();
      continue;
    }
    if (sscanf(line, "%31s %ld", operation, &pages) != 2) return 1;
    uint64_t stride = strcmp(operation, "each") == 0 ? PREFETCHED : 1;
    if (pages < 1 || pages * stride > (RAM - PAGES_FROM) / PAGE) return 1;
    if (strcmp(operation, "resident") == 0) touch(pages, stride);
    else take_entries();
    uint64_t before = stat_of("pf_taken"), ns = touch(pages, stride);
    printf("%lu %lu\n", ns, stat_of("pf_taken") - before);
  }
}
