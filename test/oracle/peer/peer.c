/* Server and coordinator: see peer.h. */
#include "peer.h"
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

struct program program;
struct base base;
int fileFd[NR_FILES];
uint64_t fileInode[NR_FILES];

static const char *const callNames[NR_CALLS] = { "observe", "mmap", "munmap", "mprotect", "madvise", "mincore", "mlock",
  "munlock", "mlock2", "mlockall", "munlockall", "mremap", "fork", "exit", "load", "store", "vmRead", "vmWrite", "msync",
  "ftruncate", "fallocate", "pread", "pwrite", "fsync", "setrlimit" };

static char out[1 << 18];
static size_t outLen;
/* Where records go: a memfd of the program's, which the server passes on when it has ended. */
static int outFd;
static struct step *steps;
static int stepNumber = -1;
static int64_t memlockBytes;
static int sockets[MAX_PROCS][2];
static int pids[MAX_PROCS];

void die(const char *what) {
  const char *call = stepNumber < 0 ? "no step" : callNames[steps[stepNumber].call];
  fprintf(stderr, "oracle peer: %s (errno %s) at step %d: %s\n", what, strerror(errno), stepNumber, call);
  _exit(3);
}

static void writeAll(int fd, const void *bytes, size_t len) {
  for (size_t done = 0; done < len;) {
    ssize_t n = write(fd, (const char *)bytes + done, len - done);
    if (n <= 0) die("write");
    done += (size_t)n;
  }
}

/* 0 at the end of the stream. */
static int readAll(int fd, void *bytes, size_t len) {
  for (size_t done = 0; done < len;) {
    ssize_t n = read(fd, (char *)bytes + done, len - done);
    if (n < 0) die("read");
    if (n == 0) return 0;
    done += (size_t)n;
  }
  return 1;
}

void flushOut(void) {
  writeAll(outFd, out, outLen);
  outLen = 0;
}

void put(const void *bytes, size_t len) {
  if (outLen + len > sizeof out) flushOut();
  if (len > sizeof out) die("record too long");
  memcpy(out + outLen, bytes, len);
  outLen += len;
}

void put32(uint32_t value) { put(&value, sizeof value); }
void put64(int64_t value) { put(&value, sizeof value); }

/* ---- process ---- */

static void answer(int proc, int64_t value) { writeAll(sockets[proc][1], &value, sizeof value); }

static void beProcess(int proc);

/* The child belongs to the coordinator, which can wait for it (CLONE_PARENT). */
static int64_t forkProcess(int child) {
  long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) beProcess(child);
  return pid < 0 ? -errno : pid;
}

/* Process 0 tells what is mapped before its program begins. */
static void tellBase(void) {
  openProc();
  readBase();
  put32('B');
  put64(base.total);
  put64(base.data);
  put64(memlockBytes);
  flushOut();
  answer(0, 0);
}

static void beProcess(int proc) {
  struct step step;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
  openProc();
  for (;;) {
    if (!readAll(sockets[proc][1], &step, sizeof step)) _exit(0);
    int64_t value = 0;
    if (step.call == CALL_OBSERVE) observe(proc);
    else if (step.call == CALL_FORK) value = forkProcess((int)step.arg[0]);
    else if (step.call == CALL_EXIT) _exit(0);
    else doStep(&step);
    flushOut();
    answer(proc, value);
  }
}

/* ---- coordinator ---- */

static int64_t hear(int proc) {
  int64_t value;
  int status = 0;
  struct pollfd wait = { .fd = sockets[proc][0], .events = POLLIN };
  for (int tries = 0; poll(&wait, 1, 200) == 0; tries++) {
    if (waitpid(pids[proc], &status, WNOHANG) == 0 && tries < 50) continue;
    fprintf(stderr, "oracle peer: process %d: wait status 0x%x\n", proc, (unsigned)status);
    die("a process does not answer");
  }
  if (!readAll(sockets[proc][0], &value, sizeof value)) die("a process is gone");
  return value;
}

static int64_t ask(int proc, const struct step *step) {
  writeAll(sockets[proc][0], step, sizeof *step);
  return step->call == CALL_EXIT ? 0 : hear(proc);
}

static void putResult(int64_t ret) {
  put32('S');
  put64(ret);
  put32(0);
  flushOut();
}

static void coordinateFork(struct step *step) {
  int64_t child = step->arg[0];
  if (child < 0 || child >= MAX_PROCS || pids[child] != 0) {
    putResult(RET_NO_PROCESS);
    return;
  }
  int64_t pid = ask(step->proc, step);
  if (pid > 0) pids[child] = (int)pid;
  putResult(pid > 0 ? 0 : pid);
}

static void coordinateExit(struct step *step) {
  ask(step->proc, step);
  if (waitpid(pids[step->proc], NULL, 0) < 0) die("waitpid");
  pids[step->proc] = 0;
  putResult(0);
}

static void coordinate(struct step *step) {
  int isAccess = step->call == CALL_VMREAD || step->call == CALL_VMWRITE;
  int64_t target = isAccess ? step->arg[0] : step->proc;
  if (step->proc < 0 || step->proc >= MAX_PROCS || pids[step->proc] == 0 || target < 0 || target >= MAX_PROCS ||
      pids[target] == 0) {
    putResult(RET_NO_PROCESS);
  } else if (step->call == CALL_FORK) coordinateFork(step);
  else if (step->call == CALL_EXIT) coordinateExit(step);
  else {
    if (isAccess) step->arg[0] = pids[target];
    ask(step->proc, step);
  }
}

static void observeAll(void) {
  struct step step = { .call = CALL_OBSERVE };
  for (int proc = 0; proc < MAX_PROCS; proc++)
    if (pids[proc] != 0) ask(proc, &step);
}

static int reopen(int fd, int mode) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int again = open(path, mode | O_CLOEXEC);
  if (again < 0) die(path);
  return again;
}

/* A file that has no name: nothing leaves it behind. */
static int openTemporary(int number) {
  char path[4096];
  snprintf(path, sizeof path, "%s/unpin-oracle-%d-%d", getenv("TMPDIR"), (int)getpid(), number);
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) die(path);
  unlink(path);
  return fd;
}

static void openFiles(void) {
  for (int i = 0; i < 3; i++) {
    fileFd[i] = program.onDisk ? openTemporary(i) : memfd_create("oracle", MFD_CLOEXEC);
    if (fileFd[i] < 0) die("memfd_create");
  }
  fileFd[3] = reopen(fileFd[0], O_RDONLY);
  fileFd[4] = reopen(fileFd[0], O_WRONLY);
  for (int i = 0; i < NR_FILES; i++) {
    struct stat stat;
    if (fstat(fileFd[i], &stat) < 0) die("fstat");
    fileInode[i] = stat.st_ino;
  }
}

static void setUpWindow(void) {
  char *start = windowStart();
  size_t len = program.windowPages * PAGE;
  if (mmap(start, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != start)
    die("the window is not free");
  munmap(start, len);
}

static void runProgram(void) {
  openFiles();
  for (int i = 0; i < MAX_PROCS; i++)
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets[i]) < 0) die("socketpair");
  setUpWindow();
  pids[0] = fork();
  if (pids[0] == 0) {
    tellBase();
    beProcess(0);
  }
  hear(0);
  for (uint32_t i = 0; i < program.nrSteps; i++) {
    stepNumber = (int)i;
    coordinate(&steps[i]);
    if ((i + 1) % program.observeEvery == 0 || i + 1 == program.nrSteps) observeAll();
  }
  for (int i = 0; i < MAX_PROCS; i++)
    if (pids[i] != 0) kill(pids[i], SIGKILL);
  while (waitpid(-1, NULL, 0) > 0);
}

/* ---- server ---- */

/* As an ordinary user: the limits count for root too. */
static void dropCapabilities(void) {
  struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
  struct __user_cap_data_struct data[2] = { 0 };
  if (syscall(SYS_capset, &header, data) < 0) die("capset");
}

/* The usual limit, or less where the user may not have it. */
static void limitMemlock(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0) die("getrlimit");
  if (limit.rlim_max > 8 << 20) limit.rlim_cur = 8 << 20;
  else limit.rlim_cur = limit.rlim_max;
  memlockBytes = (int64_t)limit.rlim_cur;
  setrlimit(RLIMIT_MEMLOCK, &limit);
}

/* The stack reaches its full size now, so that no later growth counts as the program's. */
static void __attribute__((noinline)) growStack(void) {
  volatile char room[128 * 1024];
  for (size_t i = 0; i < sizeof room; i += 1024) room[i] = 0;
}

#ifdef __x86_64__
/* What the kernel maps by itself cannot be locked; without it all that is mapped can. */
static void unmapSpecial(void) {
  char line[512], name[256];
  unsigned long start[8], end[8];
  int n = 0;
  FILE *maps = fopen("/proc/self/maps", "re");
  if (maps == NULL) die("/proc/self/maps");
  while (n < 8 && fgets(line, sizeof line, maps) != NULL) {
    if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %255s", &start[n], &end[n], name) == 3 &&
        (strncmp(name, "[vvar", 5) == 0 || strcmp(name, "[vdso]") == 0)) n++;
  }
  fclose(maps);
  while (n-- > 0) munmap((void *)start[n], end[n] - start[n]);
}
#else
static void unmapSpecial(void) {}
#endif

static void hello(void) {
  printf("oracle %ld", sysconf(_SC_PAGESIZE));
  for (int i = 0; i < NR_CALLS; i++) printf(" %s", callNames[i]);
  printf("\n");
  fflush(stdout);
}

/* status, length, and what the program's processes have written */
static void passOn(int status) {
  off_t len = lseek(outFd, 0, SEEK_CUR);
  uint64_t header[2] = { (uint64_t)status, (uint64_t)len };
  writeAll(1, header, sizeof header);
  for (off_t at = 0; at < len;) {
    ssize_t n = pread(outFd, out, sizeof out, at);
    if (n <= 0) die("records");
    writeAll(1, out, (size_t)n);
    at += n;
  }
  close(outFd);
}

static void serve(void) {
  size_t bytes = program.nrSteps * sizeof *steps;
  steps = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (steps == MAP_FAILED || !readAll(0, steps, bytes)) die("program");
  outFd = memfd_create("records", MFD_CLOEXEC);
  int pid = fork();
  if (pid < 0 || outFd < 0) die("fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    madvise(steps, bytes, MADV_DONTFORK);
    runProgram();
    _exit(0);
  }
  int status;
  if (waitpid(pid, &status, 0) < 0) die("waitpid");
  munmap(steps, bytes);
  passOn(status);
}

int main(void) {
  struct rlimit noCore = { 0, 0 };
  setvbuf(stdout, NULL, _IONBF, 0);
  growStack();
  unmapSpecial();
  setrlimit(RLIMIT_CORE, &noCore);
  limitMemlock();
  dropCapabilities();
  if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) < 0) die("PR_SET_THP_DISABLE");
  catchFaults();
  hello();
  while (readAll(0, &program, sizeof program)) serve();
  return 0;
}
