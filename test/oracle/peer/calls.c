/* One call of a program, done by the process it is meant for. */
#include "peer.h"
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static unsigned char buffer[MAX_LEN];
static sigjmp_buf landing;
static volatile int mayFault;

static void onFault(int sig) {
  if (!mayFault) _exit(100 + sig);
  siglongjmp(landing, sig);
}

void catchFaults(void) {
  struct sigaction action = { .sa_handler = onFault, .sa_flags = SA_NODEFER };
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
}

int guarded(void (*body)(void *), void *arg) {
  int sig = sigsetjmp(landing, 0);
  if (sig == 0) {
    mayFault = 1;
    body(arg);
  }
  mayFault = 0;
  return sig;
}

static void *address(int64_t at) {
  if (at >= FROM_TOP - NEAR) return (void *)(TOP + (at - FROM_TOP));
  if (at >= FROM_ZERO) return (void *)(at - FROM_ZERO);
  return windowStart() + at;
}

static size_t length(int64_t len) {
  if (len == LEN_TOP) return TOP;
  if (len == LEN_MAX) return (size_t)-PAGE;
  return (size_t)len;
}

static int inWindow(char *at) { return at >= windowStart() && at < windowStart() + program.windowPages * PAGE; }

static int64_t result(long ret) { return ret < 0 ? -errno : ret; }

/* FNV-1a */
static uint32_t hashBytes(const unsigned char *bytes, size_t len) {
  uint32_t hash = 0x811c9dc5;
  for (size_t i = 0; i < len; i++) hash = (hash ^ bytes[i]) * 0x01000193;
  return hash;
}

static void fillPattern(size_t len, int64_t value) {
  for (size_t i = 0; i < len; i++) buffer[i] = (unsigned char)(value + (int64_t)i * 7);
}

static int64_t doMmap(const int64_t *a) {
  int fd = a[4] >= 0 && a[4] < NR_FILES ? fileFd[a[4]] : -1;
  char *at = mmap(address(a[0]), length(a[1]), (int)a[2], (int)a[3], fd, a[5]);
  if (at == MAP_FAILED) return -errno;
  if (inWindow(at)) return at - windowStart();
  munmap(at, length(a[1]));
  return RET_ELSEWHERE;
}

/* What moved out of the window is moved on to arg 5. */
static int64_t doMremap(const int64_t *a) {
  char *at = mremap(address(a[0]), length(a[1]), length(a[2]), (int)a[3], address(a[4]));
  if (at == MAP_FAILED) return -errno;
  if (inWindow(at)) return at - windowStart();
  size_t len = (length(a[2]) + PAGE - 1) & -PAGE;
  if (mremap(at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, address(a[5])) == MAP_FAILED) die("mremap back to the window");
  return RET_ELSEWHERE;
}

struct copy {
  volatile unsigned char *dst;
  const volatile unsigned char *src;
  size_t len;
};

static void copyBytes(void *arg) {
  struct copy *copy = arg;
  for (size_t i = 0; i < copy->len; i++) copy->dst[i] = copy->src[i];
}

static int64_t faultOf(int sig) { return sig == 0 ? 0 : sig == SIGBUS ? RET_SIGBUS : RET_SIGSEGV; }

static int64_t doLoad(const int64_t *a, size_t *dataLen) {
  struct copy copy = { buffer, address(a[0]), (size_t)a[1] };
  int64_t ret = faultOf(guarded(copyBytes, &copy));
  if (ret == 0) *dataLen = (size_t)a[1];
  return ret;
}

static int64_t doStore(const int64_t *a) {
  struct copy copy = { address(a[0]), buffer, (size_t)a[1] };
  fillPattern((size_t)a[1], a[2]);
  return faultOf(guarded(copyBytes, &copy));
}

/* args: pid, number of local pieces, 4 lengths, number of remote pieces, 4 pairs of address and length, value */
static int64_t doVmAccess(const int64_t *a, int write, size_t *dataLen) {
  struct iovec local[4], remote[4];
  size_t at = 0;
  for (int i = 0; i < 4; i++) {
    local[i] = (struct iovec){ buffer + at, (size_t)a[2 + i] };
    at += (size_t)a[2 + i];
    remote[i] = (struct iovec){ address(a[7 + 2 * i]), length(a[8 + 2 * i]) };
  }
  if (write) fillPattern(at, a[15]);
  else memset(buffer, 0, at);
  *dataLen = write ? 0 : at;
  return result(write ? process_vm_writev((int)a[0], local, (unsigned long)a[1], remote, (unsigned long)a[6], 0)
                      : process_vm_readv((int)a[0], local, (unsigned long)a[1], remote, (unsigned long)a[6], 0));
}

static int64_t doMincore(const int64_t *a, size_t *dataLen) {
  int64_t ret = result(mincore(address(a[0]), length(a[1]), buffer));
  if (ret == 0) *dataLen = (size_t)(a[1] + PAGE - 1) / PAGE;
  for (size_t i = 0; i < *dataLen; i++) buffer[i] &= 1;
  return ret;
}

static int64_t doSetrlimit(const int64_t *a) {
  static const int which[] = { RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_DATA };
  int64_t bytes[] = { 0, base.total * PAGE, base.data * PAGE };
  struct rlimit limit;
  if (getrlimit(which[a[0]], &limit) < 0) die("getrlimit");
  limit.rlim_cur = a[1] < 0 ? limit.rlim_max : (rlim_t)(a[1] + bytes[a[0]]);
  return result(setrlimit(which[a[0]], &limit));
}

static int64_t doFileCall(const struct step *step, size_t *dataLen) {
  const int64_t *a = step->arg;
  int fd = fileFd[a[0]];
  switch (step->call) {
  case CALL_FTRUNCATE: return result(ftruncate(fd, a[1]));
  case CALL_FALLOCATE: return result(fallocate(fd, (int)a[1], a[2], a[3]));
  case CALL_PREAD: {
    int64_t ret = result(pread(fd, buffer, (size_t)a[2], a[1]));
    if (ret > 0) *dataLen = (size_t)ret;
    return ret;
  }
  case CALL_PWRITE: fillPattern((size_t)a[2], a[3]); return result(pwrite(fd, buffer, (size_t)a[2], a[1]));
  default: return result(fsync(fd));
  }
}

static int64_t doCall(const struct step *step, size_t *dataLen) {
  const int64_t *a = step->arg;
  switch (step->call) {
  case CALL_MMAP: return doMmap(a);
  case CALL_MUNMAP: return result(munmap(address(a[0]), length(a[1])));
  case CALL_MPROTECT: return result(mprotect(address(a[0]), length(a[1]), (int)a[2]));
  case CALL_MADVISE: return result(madvise(address(a[0]), length(a[1]), (int)a[2]));
  case CALL_MINCORE: return doMincore(a, dataLen);
  case CALL_MLOCK: return result(mlock(address(a[0]), length(a[1])));
  case CALL_MUNLOCK: return result(munlock(address(a[0]), length(a[1])));
  case CALL_MLOCK2: return result(syscall(SYS_mlock2, address(a[0]), length(a[1]), (int)a[2]));
  case CALL_MLOCKALL: return result(mlockall((int)a[0]));
  case CALL_MUNLOCKALL: return result(munlockall());
  case CALL_MREMAP: return doMremap(a);
  case CALL_LOAD: return doLoad(a, dataLen);
  case CALL_STORE: return doStore(a);
  case CALL_VMREAD: return doVmAccess(a, 0, dataLen);
  case CALL_VMWRITE: return doVmAccess(a, 1, dataLen);
  case CALL_MSYNC: return result(msync(address(a[0]), length(a[1]), (int)a[2]));
  case CALL_SETRLIMIT: return doSetrlimit(a);
  default: return doFileCall(step, dataLen);
  }
}

/* The result, and what was read: mincore's vector as it is, bytes of memory as their hash. */
void doStep(struct step *step) {
  size_t dataLen = 0;
  int64_t ret = doCall(step, &dataLen);
  if (ret < 0) dataLen = 0;
  uint32_t hash = hashBytes(buffer, dataLen);
  put32('S');
  put64(ret);
  if (dataLen > 0 && step->call != CALL_MINCORE) {
    put32(sizeof hash);
    put32(hash);
  } else {
    put32((uint32_t)dataLen);
    put(buffer, dataLen);
  }
}
