#include "CX87.h"

#include <string.h>

extern const uint8_t cx87_register_forms[8][64][4] __attribute__((visibility("hidden")));
extern const uint8_t cx87_memory_forms[8][8][4] __attribute__((visibility("hidden")));

void cx87_call(uint8_t *operand, uint8_t *image, const void *stub, uint64_t *flags)
    __attribute__((visibility("hidden")));

#define FROM(first, count) (~0ull >> (64 - (count)) << ((first) - 0xC0))

// By opcode from D8H: the ModRM bytes from C0H that are instructions (SDM vol. 2, appendix
// A.5), without the second encodings that no manual names.
static const uint64_t register_forms[8] = {
  FROM(0xC0, 64),
  FROM(0xC0, 17) | FROM(0xE0, 2) | FROM(0xE4, 2) | FROM(0xE8, 7) | FROM(0xF0, 16),
  FROM(0xC0, 32) | FROM(0xE9, 1),
  FROM(0xC0, 32) | FROM(0xE0, 2) | FROM(0xE4, 1) | FROM(0xE8, 16),
  FROM(0xC0, 16) | FROM(0xE0, 32),
  FROM(0xC0, 8) | FROM(0xD0, 32),
  FROM(0xC0, 16) | FROM(0xD9, 1) | FROM(0xE0, 32),
  FROM(0xC0, 8) | FROM(0xE8, 16),
};

// The same for the reg field of those with memory. FLDCW, FNSTCW and FNSTSW are the
// caller's.
static const uint8_t memory_forms[8] = {0xFF, 0x5D, 0xFF, 0xAF, 0xFF, 0x5F, 0xFF, 0xFF};

// FNENI, FNDISI, FNSETPM, FNSTENV and FNSAVE are done whatever waits.
static int is_patient(uint8_t opcode, uint8_t modrm) {
  if (opcode == 0xDB && modrm >= 0xE0 && modrm < 0xE8) return 1;
  return modrm < 0xC0 && (opcode == 0xD9 || opcode == 0xDD) && (modrm >> 3 & 7) == 6;
}

enum cx87_outcome cx87_check(uint8_t opcode, uint8_t modrm, const uint8_t image[CX87_IMAGE]) {
  if (opcode < 0xD8 || opcode > 0xDF) return CX87_UNKNOWN;
  int known = modrm >= 0xC0 ? register_forms[opcode - 0xD8] >> (modrm - 0xC0) & 1
                            : memory_forms[opcode - 0xD8] >> (modrm >> 3 & 7) & 1;
  if (!known) return CX87_UNKNOWN;
  int waits = (image[2] & ~image[0] & 0x3F) != 0;
  return waits && !is_patient(opcode, modrm) ? CX87_WAITING : CX87_DONE;
}

enum cx87_outcome cx87_execute(
    uint8_t opcode, uint8_t modrm, uint8_t image[CX87_IMAGE], uint8_t operand[CX87_OPERAND],
    uint64_t *flags) {
  enum cx87_outcome outcome = cx87_check(opcode, modrm, image);
  if (outcome != CX87_DONE) return outcome;
  _Alignas(16) uint8_t whole[512] = {0};
  memcpy(whole, image, CX87_IMAGE);
  // MXCSR has bits that cannot be loaded; nothing here uses it.
  const uint32_t mxcsr = 0x1F80;
  memcpy(whole + 24, &mxcsr, sizeof mxcsr);
  // Of the flags just CF, PF, AF, ZF, SF and OF.
  const uint64_t arithmetic = 0x8D5;
  uint64_t used = (*flags & arithmetic) | 2;
  const void *stub = modrm >= 0xC0 ? cx87_register_forms[opcode - 0xD8][modrm - 0xC0]
                                   : cx87_memory_forms[opcode - 0xD8][modrm >> 3 & 7];
  cx87_call(operand, whole, stub, &used);
  memcpy(image, whole, 24);
  memcpy(image + 32, whole + 32, 128);
  *flags = (*flags & ~arithmetic) | (used & arithmetic);
  return CX87_DONE;
}
