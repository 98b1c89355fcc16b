// Runs a few bytes of machine code on the real processor: the measure for code that
// claims to do what one instruction does. For tests only.
#ifndef CNATIVECODE_H
#define CNATIVECODE_H

#include <stddef.h>
#include <stdint.h>

struct cnative_state {
  // In encoding order; RSP is neither loaded nor stored.
  uint64_t general[16];
  uint64_t flags;
  uint64_t reserved;
  uint8_t vectors[16][16];
};

// Returns 0, or -errno where no page for code can be had.
int cnative_run(const uint8_t *code, size_t count, struct cnative_state *state);

// Of CPUID leaf and sub-leaf.
void cnative_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t registers[4]);

// Of GuestPrograms.S and the files named for their guest, where what each does is told.
enum cguest {
  CGUEST_PROTECTED,
  CGUEST_LONG,
  CGUEST_FLASH,
  CGUEST_CLONE,
  CGUEST_COUNTING,
  CGUEST_PARAVIRTUAL,
  CGUEST_WRITING,
  CGUEST_AGENT,
};

// Copies a guest's code; returns its size.
size_t cguest_copy(enum cguest guest, uint8_t *target, size_t capacity);

#endif
