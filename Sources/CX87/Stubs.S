// One x87 instruction and a return for each opcode and ModRM byte, 4 bytes apart.
.text

// D8H to DFH with ModRM C0H to FFH: registers.
.globl cx87_register_forms
.hidden cx87_register_forms
.balign 16
cx87_register_forms:
.irp opcode, 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF
.set modrm, 0xC0
.rept 64
 .byte \opcode, modrm, 0xC3, 0xCC
 .set modrm, modrm + 1
.endr
.endr

// D8H to DFH with each of 8 instructions on memory at RDI.
.globl cx87_memory_forms
.hidden cx87_memory_forms
.balign 16
cx87_memory_forms:
.irp opcode, 0xD8, 0xD9, 0xDA, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF
.set modrm, 0x07
.rept 8
 .byte \opcode, modrm, 0xC3, 0xCC
 .set modrm, modrm + 8
.endr
.endr

// void cx87_call(uint8_t *operand, uint8_t image[512], const void *stub, uint64_t *flags)
//
// FXSAVE and FXRSTOR look at no exception that waits, so none is met here. The vector
// registers, which they move as well, are the caller's to lose.
.globl cx87_call
.hidden cx87_call
.type cx87_call, @function
.balign 16
cx87_call:
 .cfi_startproc
 sub $520, %rsp
 .cfi_adjust_cfa_offset 520
 fxsave64 (%rsp)
 fxrstor64 (%rsi)
 pushq (%rcx)
 .cfi_adjust_cfa_offset 8
 popfq
 .cfi_adjust_cfa_offset -8
 call *%rdx
 pushfq
 .cfi_adjust_cfa_offset 8
 popq (%rcx)
 .cfi_adjust_cfa_offset -8
 fxsave64 (%rsi)
 fxrstor64 (%rsp)
 add $520, %rsp
 .cfi_adjust_cfa_offset -520
 ret
 .cfi_endproc
.size cx87_call, .-cx87_call

.section .note.GNU-stack, "", @progbits
