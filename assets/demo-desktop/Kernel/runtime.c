// The C runtime that compiled Swift expects: memory blocks, an allocator, the
// stack protector. One thread, so nothing here locks.
#include <stddef.h>
#include <stdint.h>

extern uint8_t image_end[];

void *memcpy(void *restrict to, const void *restrict from, size_t count) {
  void *start = to;
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
  return start;
}

void *memset(void *to, int value, size_t count) {
  void *start = to;
  __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  return start;
}

void *memmove(void *to, const void *from, size_t count) {
  uint8_t *t = to;
  const uint8_t *f = from;
  if (t <= f || t >= f + count) return memcpy(to, from, count);
  while (count >= 8) {
    count -= 8;
    uint64_t word;
    __builtin_memcpy(&word, f + count, 8);
    __builtin_memcpy(t + count, &word, 8);
  }
  while (count > 0) {
    count--;
    t[count] = f[count];
  }
  return to;
}

int memcmp(const void *left, const void *right, size_t count) {
  const uint8_t *l = left, *r = right;
  for (size_t i = 0; i < count; i++)
    if (l[i] != r[i]) return l[i] - r[i];
  return 0;
}

// The allocator: sizes are rounded up to one of four steps per power of two, each
// step has a list of free blocks, and a new block is cut from the end of the heap.
// A header before each block remembers its step.
enum { STEPS = 4 * 32, ALIGNMENT = 16 };

typedef struct block {
  struct block *next;
} block;

static block *free_blocks[STEPS];
static uintptr_t heap_next, heap_end;

void heap_initialize(uint64_t end) {
  heap_next = (uintptr_t)image_end;
  heap_end = end;
}

static unsigned step_for(size_t size, size_t *rounded) {
  if (size < 64) size = 64;
  unsigned power = 63 - __builtin_clzll(size - 1);
  size_t quarter = (size_t)1 << (power - 2);
  size_t step = (size - ((size_t)1 << power) + quarter - 1) / quarter;
  *rounded = ((size_t)1 << power) + step * quarter;
  return (power - 5) * 4 + (unsigned)step;
}

int posix_memalign(void **result, size_t alignment, size_t size) {
  if (alignment < ALIGNMENT) alignment = ALIGNMENT;
  if (alignment > 4096 || size > (size_t)1 << 30) return 22;
  size_t padding = alignment == ALIGNMENT ? 0 : alignment, rounded;
  unsigned step = step_for(size + padding + ALIGNMENT, &rounded);
  uintptr_t base;
  if (free_blocks[step]) {
    base = (uintptr_t)free_blocks[step];
    free_blocks[step] = free_blocks[step]->next;
  } else {
    if (rounded > heap_end - heap_next) return 12;
    base = heap_next;
    heap_next += rounded;
  }
  uintptr_t address = (base + ALIGNMENT + alignment - 1) & ~(alignment - 1);
  ((uint64_t *)address)[-1] = step;
  ((uint64_t *)address)[-2] = base;
  *result = (void *)address;
  return 0;
}

void *malloc(size_t size) {
  void *result;
  return posix_memalign(&result, ALIGNMENT, size) == 0 ? result : NULL;
}

void free(void *address) {
  if (!address) return;
  uint64_t step = ((uint64_t *)address)[-1];
  block *freed = (block *)((uint64_t *)address)[-2];
  freed->next = free_blocks[step];
  free_blocks[step] = freed;
}

uintptr_t __stack_chk_guard = 0x595e9fbd94fda766;

_Noreturn void __stack_chk_fail(void) {
  __builtin_trap();
}

// Seeds the hashing of the standard library; nothing here is a secret.
void arc4random_buf(void *buffer, size_t count) {
  memset(buffer, 0x5A, count);
}

float sqrtf(float value) {
  __asm__("sqrtss %0, %0" : "+x"(value));
  return value;
}
