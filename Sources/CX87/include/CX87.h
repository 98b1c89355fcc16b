// x87 instructions, carried out by the processor of this host.
//
// There is a stub for each: nothing is generated when a guest runs, and none of its bytes
// are executed.
#ifndef CX87_H
#define CX87_H

#include <stddef.h>
#include <stdint.h>

enum cx87_outcome {
  CX87_DONE = 0,
  // Not one that every 64-bit processor has.
  CX87_UNKNOWN = 1,
  // An exception that is not masked waits in the status word, and would come here.
  CX87_WAITING = 2,
};

// The x87 part of an FXSAVE image, and the largest memory operand, that of FNSAVE.
enum { CX87_IMAGE = 160, CX87_OPERAND = 108 };

// What cx87_execute would say. `opcode` is D8H to DFH.
enum cx87_outcome cx87_check(uint8_t opcode, uint8_t modrm, const uint8_t image[CX87_IMAGE]);

// Executes an instruction on the state in `image`, with the arithmetic flags in `flags`.
// Of a ModRM byte below C0H only the instruction counts: its operand is `operand`, in the
// format of 64-bit mode with an operand size of 32 bits.
//
// An exception that arises and is not masked is in the status word afterwards; the caller
// delivers it when the guest's next instruction asks. Where the last instruction and its
// operand were is this process's affair, and of no use in the image.
enum cx87_outcome cx87_execute(
    uint8_t opcode, uint8_t modrm, uint8_t image[CX87_IMAGE], uint8_t operand[CX87_OPERAND],
    uint64_t *flags);

#endif
