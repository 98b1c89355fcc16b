// x86 instructions taken apart by Zydis, in the form that completing them needs.
//
// The library is loaded when it is first needed: most hosts never need it.
#ifndef CZYDIS_H
#define CZYDIS_H

#include <Zydis/Zydis.h>
#include <stddef.h>
#include <stdint.h>

enum czydis_operand_kind {
  CZYDIS_NONE = 0,
  CZYDIS_GENERAL = 1,
  CZYDIS_VECTOR = 2,
  CZYDIS_MEMORY = 3,
  CZYDIS_IMMEDIATE = 4,
  CZYDIS_OTHER = 5,
};

enum czydis_outcome {
  CZYDIS_TRUNCATED = -1,
  CZYDIS_INVALID = 0,
  CZYDIS_WHOLE = 1,
};

struct czydis_operand {
  uint8_t kind;
  // Of the register: 0 to 15 in encoding order; AH, CH, DH and BH are 4 to 7 with `high`
  // set. 0xFF for other registers.
  uint8_t number;
  uint8_t high;
  // Memory: ES 0, CS, SS, DS, FS, GS 5.
  uint8_t segment;
  // Memory: 0 to 15, 16 for RIP, 0xFF for none.
  uint8_t base;
  uint8_t index;
  uint8_t scale;
  uint8_t reserved;
  uint16_t bits;
  int64_t displacement;
  uint64_t immediate;
};

struct czydis_instruction {
  uint16_t mnemonic;
  uint8_t length;
  uint8_t operand_width;
  uint8_t address_width;
  uint8_t operand_count;
  uint8_t has_lock;
  // 0 for legacy encoding, else the vector length in bits / 128 of VEX.
  uint8_t vector_length;
  // The last byte of the opcode, and what follows it, 0 if nothing does.
  uint8_t opcode;
  uint8_t modrm;
  struct czydis_operand operands[4];
};

// Whether the library is there.
int czydis_is_available(void);

// mode: 16, 32 or 64 bits of the code segment; 0 for real mode.
// CZYDIS_WHOLE fills `instruction`; CZYDIS_INVALID is what no processor executes.
int czydis_decode(
    int mode, const uint8_t *bytes, size_t count, struct czydis_instruction *instruction);

// "popcnt"; NULL without the library.
const char *czydis_mnemonic_name(uint16_t mnemonic);

#endif
