#include "CNativeCode.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

void cnative_call(struct cnative_state *state, const void *code);

__asm__(
    ".text\n"
    ".globl cnative_call\n"
    ".type cnative_call, @function\n"
    "cnative_call:\n"
    "  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "  push %rdi; push %rsi\n"
#define VECTORS(op) \
  op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) \
  op(8) op(9) op(10) op(11) op(12) op(13) op(14) op(15)
#define LOAD(n) "  movups 144+16*" #n "(%rdi), %xmm" #n "\n"
#define STORE(n) "  movups %xmm" #n ", 144+16*" #n "(%rdi)\n"
    VECTORS(LOAD)
    "  push 128(%rdi); popfq\n"
    "  mov 0(%rdi), %rax; mov 8(%rdi), %rcx; mov 16(%rdi), %rdx; mov 24(%rdi), %rbx\n"
    "  mov 40(%rdi), %rbp; mov 48(%rdi), %rsi\n"
    "  mov 64(%rdi), %r8; mov 72(%rdi), %r9; mov 80(%rdi), %r10; mov 88(%rdi), %r11\n"
    "  mov 96(%rdi), %r12; mov 104(%rdi), %r13; mov 112(%rdi), %r14; mov 120(%rdi), %r15\n"
    "  mov 56(%rdi), %rdi\n"
    "  call *(%rsp)\n"
    "  push %rdi; mov 16(%rsp), %rdi\n"
    "  mov %rax, 0(%rdi); mov %rcx, 8(%rdi); mov %rdx, 16(%rdi); mov %rbx, 24(%rdi)\n"
    "  mov %rbp, 40(%rdi); mov %rsi, 48(%rdi)\n"
    "  mov %r8, 64(%rdi); mov %r9, 72(%rdi); mov %r10, 80(%rdi); mov %r11, 88(%rdi)\n"
    "  mov %r12, 96(%rdi); mov %r13, 104(%rdi); mov %r14, 112(%rdi); mov %r15, 120(%rdi)\n"
    "  pop %rax; mov %rax, 56(%rdi)\n"
    "  pushfq; pop %rax; mov %rax, 128(%rdi)\n"
    VECTORS(STORE)
    "  cld\n"
    "  pop %rsi; pop %rdi\n"
    "  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "  ret\n"
    ".size cnative_call, .-cnative_call\n");

int cnative_run(const uint8_t *code, size_t count, struct cnative_state *state) {
  uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return -errno;
  if (count > 4095) count = 4095;
  memcpy(page, code, count);
  page[count] = 0xC3;
  int result = mprotect(page, 4096, PROT_READ | PROT_EXEC) < 0 ? -errno : 0;
  if (result == 0) cnative_call(state, page);
  munmap(page, 4096);
  return result;
}

void cnative_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t registers[4]) {
  __cpuid_count(leaf, subleaf, registers[0], registers[1], registers[2], registers[3]);
}

extern const uint8_t cguest_protected[], cguest_protected_end[];
extern const uint8_t cguest_long[], cguest_long_end[];
extern const uint8_t cguest_flash[], cguest_flash_end[];
extern const uint8_t cguest_clone[], cguest_clone_end[];
extern const uint8_t cguest_counting[], cguest_counting_end[];
extern const uint8_t cguest_paravirtual[], cguest_paravirtual_end[];
extern const uint8_t cguest_writing[], cguest_writing_end[];
extern const uint8_t cguest_agent[], cguest_agent_end[];

size_t cguest_copy(enum cguest guest, uint8_t *target, size_t capacity) {
#define GUEST(name) {cguest_##name, cguest_##name##_end}
  static const struct {
    const uint8_t *start, *end;
  } guests[] = {
      GUEST(protected),
      GUEST(long),
      GUEST(flash),
      GUEST(clone),
      GUEST(counting),
      GUEST(paravirtual),
      GUEST(writing),
      GUEST(agent),
  };
#undef GUEST
  size_t count = guests[guest].end - guests[guest].start;
  memcpy(target, guests[guest].start, count < capacity ? count : capacity);
  return count;
}
