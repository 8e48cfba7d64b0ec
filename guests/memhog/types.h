/* Words, sizes and the few macros that every file of this guest uses. */
#ifndef MEMHOG_TYPES_H
#define MEMHOG_TYPES_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define PAGE_SIZE 4096ul
#define PAGE_SHIFT 12
#define WORDS_PER_PAGE 512
#define MIB (1ul << 20)

#define ALIGN_DOWN(x, a) ((x) & ~((a) - 1))
#define ALIGN_UP(x, a) ALIGN_DOWN((x) + (a) - 1, (a))

#define READ_CSR(name) ({ u64 v_; __asm__ volatile("csrr %0, " #name : "=r"(v_)); v_; })
#define WRITE_CSR(name, v) __asm__ volatile("csrw " #name ", %0" ::"r"((u64)(v)) : "memory")
#define SET_CSR(name, v) __asm__ volatile("csrs " #name ", %0" ::"r"((u64)(v)) : "memory")
#define CLEAR_CSR(name, v) __asm__ volatile("csrc " #name ", %0" ::"r"((u64)(v)) : "memory")

#define SSTATUS_SIE (1ul << 1)
#define SSTATUS_SPIE (1ul << 5)
#define SSTATUS_SPP (1ul << 8)
#define SIE_STIE (1ul << 5)

#endif
