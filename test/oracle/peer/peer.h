/*
 * The Linux side of the oracle: what its three files share.
 *
 * server (peer.c): reads programs from stdin, forks a coordinator for each.
 * coordinator (peer.c): holds the tree of processes of one program, hands them their steps one at a time.
 * process: does one call (calls.c), then tells what its memory looks like (observe.c). Both go to the program's records;
 *   an answer on its socket says that they are out, so the records are in the order of the program.
 *
 * All numbers are little endian, as the machine's own: test/oracle/linux.ts is the other end.
 */
#ifndef PEER_H
#define PEER_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096L
/* Where the window of a program starts: two MiB-aligned, less `lead` pages. */
#define WINDOW 0x600000000000L
#define MAX_WINDOW_PAGES 4096
#define MAX_PROCS 6
/* Descriptors that programs name: three files, and file 0 opened for reading alone and for writing alone. */
#define NR_FILES 5
#define NR_ARGS 20
#define MAX_LEN (1 << 20)

/* Addresses about here are not relative to the window: from 0 up, and about the end of the address space. */
#define FROM_ZERO (1L << 41)
#define FROM_TOP (1L << 42)
#define NEAR (1L << 30)
#define TOP 0x7ffffffff000L
#define LEN_TOP (1L << 43)
#define LEN_MAX (1L << 44)

/* Results beside -errno: the address is not in the window, a signal, no such process. */
#define RET_ELSEWHERE (1L << 45)
#define RET_SIGSEGV (-1001)
#define RET_SIGBUS (-1002)
#define RET_NO_PROCESS (-2000)

enum call { CALL_OBSERVE, CALL_MMAP, CALL_MUNMAP, CALL_MPROTECT, CALL_MADVISE, CALL_MINCORE, CALL_MLOCK, CALL_MUNLOCK,
  CALL_MLOCK2, CALL_MLOCKALL, CALL_MUNLOCKALL, CALL_MREMAP, CALL_FORK, CALL_EXIT, CALL_LOAD, CALL_STORE, CALL_VMREAD,
  CALL_VMWRITE, CALL_MSYNC, CALL_FTRUNCATE, CALL_FALLOCATE, CALL_PREAD, CALL_PWRITE, CALL_FSYNC, CALL_SETRLIMIT,
  NR_CALLS };

struct step {
  int32_t call, proc;
  int64_t arg[NR_ARGS];
};

struct program {
  uint32_t nrSteps, windowPages, leadPages, observeEvery, onDisk;
};

/* Pages of the process before its program begins. */
struct base {
  int64_t total, data;
};

extern struct program program;
extern struct base base;
extern int fileFd[NR_FILES];
extern uint64_t fileInode[NR_FILES];

static inline char *windowStart(void) { return (char *)WINDOW - program.leadPages * PAGE; }

/* peer.c: the stream */
void put(const void *bytes, size_t len);
void put32(uint32_t value);
void put64(int64_t value);
void flushOut(void);
void die(const char *what);

/* calls.c */
void doStep(struct step *step);
/* Runs what may fault; the signal that ended it, or 0. */
int guarded(void (*body)(void *), void *arg);
void catchFaults(void);

/* observe.c */
void openProc(void);
void observe(int proc);
void readBase(void);
uint64_t hashPage(const void *page);

#endif
