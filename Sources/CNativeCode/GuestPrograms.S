// Guests for tests, to be loaded at 1 MiB and entered in 32-bit protected mode. They tell
// how far they came by letters on the first serial port, or end with '!'.
.intel_syntax noprefix
.section .rodata

// Instructions that KVM's emulator lacks, in 32-bit protected mode, with the exceptions
// that they raise.
.globl cguest_protected
.globl cguest_protected_end
cguest_protected:
.code32
p_start:
 mov esp, 0x90000
 lgdt [p_gdtr_at]
 .byte 0xEA
 .long p_flat_at
 .word 8
p_flat:
 mov eax, 0x10
 mov ds, eax
 mov es, eax
 mov ss, eax
 mov edi, 0x200000
 mov eax, offset p_h1_at
 mov ecx, 1
 call p_gate
 mov eax, offset p_h3_at
 mov ecx, 3
 call p_gate
 mov eax, offset p_h6_at
 mov ecx, 6
 call p_gate
 lidt [p_idtr_at]
 fwait
 mov al, 'a'
 call p_send
 mov ebx, 0xF0F0
 popcnt eax, ebx
 cmp eax, 8
 jne p_fail
 mov al, 'b'
 call p_send
 int3
 mov al, 'd'
 call p_send
 mov ebx, 0x00010000
 tzcnt eax, ebx
 cmp eax, 16
 jne p_fail
 mov dword ptr [0x300000], 0x11223344
 xor eax, eax
 crc32 eax, dword ptr [0x300000]
 cmp eax, 0x11B7BF79
 jne p_fail
 mov al, 'e'
 call p_send
 ud2
 mov al, 'g'
 call p_send
 mov eax, cr4
 or eax, 0x200
 mov cr4, eax
 movups xmm0, [0x300000]
 pshufd xmm1, xmm0, 0x1b
 pxor xmm0, xmm0
 movups [0x300010], xmm1
 mov eax, [0x30001c]
 cmp eax, 0x11223344
 jne p_fail
 mov al, 'h'
 call p_send
 fninit
 mov dword ptr [0x300000], 7
 fild dword ptr [0x300000]
 fld1
 fld st(0)
 faddp
 fdivp
 fstp qword ptr [0x300008]
 cmp dword ptr [0x30000c], 0x400C0000
 jne p_fail
 fldz
 fldz
 fdivp
 fld1
 fcomip st, st(1)
 jnp p_fail
 fnstenv [0x300020]
 cmp word ptr [0x300024], 0x3801
 jne p_fail
 mov al, 'k'
 call p_send
 pushfd
 or dword ptr [esp], 0x100
 popfd
 popcnt eax, ebx
 mov al, 'j'
 call p_send
 mov dx, 0x604
 mov ax, 0x2000
 out dx, ax
p_stop:
 cli
 hlt
 jmp p_stop
p_fail:
 mov al, '!'
 call p_send
 jmp p_stop
p_send:
 mov edx, 0x3F8
 out dx, al
 ret
p_gate:
 mov edx, eax
 and edx, 0xFFFF
 or edx, 0x80000
 mov [edi+ecx*8], edx
 and eax, 0xFFFF0000
 or eax, 0x8E00
 mov [edi+ecx*8+4], eax
 ret
p_h1:
 mov eax, dr6
 test eax, 0x4000
 jz p_fail
 mov al, 'i'
 call p_send
 and dword ptr [esp+8], 0xFFFFFEFF
 iretd
p_h3:
 mov al, 'c'
 call p_send
 iretd
p_h6:
 mov al, 'f'
 call p_send
 add dword ptr [esp], 2
 iretd
.align 8
p_gdt:
 .quad 0
 .quad 0x00CF9B000000FFFF
 .quad 0x00CF93000000FFFF
p_gdtr:
 .word 23
 .long p_gdt_at
p_idtr:
 .word 127
 .long 0x200000
cguest_protected_end:

.set p_gdtr_at, p_gdtr - p_start + 0x100000
.set p_flat_at, p_flat - p_start + 0x100000
.set p_h1_at, p_h1 - p_start + 0x100000
.set p_h3_at, p_h3 - p_start + 0x100000
.set p_h6_at, p_h6 - p_start + 0x100000
.set p_gdt_at, p_gdt - p_start + 0x100000
.set p_idtr_at, p_idtr - p_start + 0x100000

// The same in 64-bit mode.
.globl cguest_long
.globl cguest_long_end
cguest_long:
.code32
l_start:
 mov esp, 0x90000
 lgdt [l_gdtr_at]
 mov edi, 0x200000
 mov dword ptr [edi], 0x201007
 mov dword ptr [edi+0x1000], 0x202007
 mov dword ptr [edi+0x2000], 0x83
 mov dword ptr [edi+0x2008], 0x200083
 mov eax, cr4
 or eax, 0x220
 mov cr4, eax
 mov cr3, edi
 mov ecx, 0xC0000080
 rdmsr
 or eax, 0x100
 wrmsr
 mov eax, cr0
 or eax, 0x80000000
 mov cr0, eax
 .byte 0xEA
 .long l_long_at
 .word 8
.code64
l_long:
 mov eax, 0x10
 mov ds, eax
 mov es, eax
 mov ss, eax
 mov rsp, 0x90000
 mov al, 'a'
 call l_send
 mov rsi, 0x300000
 mov rax, 0x1111111111111111
 mov rdx, 0x2222222222222222
 mov [rsi], rax
 mov [rsi+8], rdx
 mov rbx, 0x3333333333333333
 mov rcx, 0x4444444444444444
 lock cmpxchg16b [rsi]
 jnz l_fail
 cmp [rsi], rbx
 jne l_fail
 cmp [rsi+8], rcx
 jne l_fail
 lock cmpxchg16b [rsi]
 jz l_fail
 cmp rax, rbx
 jne l_fail
 cmp rdx, rcx
 jne l_fail
 mov al, 'b'
 call l_send
 mov rax, [rsi+8]
 popcnt rax, rax
 cmp rax, 16
 jne l_fail
 mov al, 'c'
 call l_send
 mov rax, rsp
 push 0x10
 push rax
 pushfq
 push 8
 lea rax, [rip+l_back]
 push rax
 iretq
 jmp l_fail
l_back:
 mov al, 'd'
 call l_send
 cmp rsp, 0x90000
 jne l_fail
 movq xmm3, rcx
 punpcklqdq xmm3, xmm3
 movdqa [rsi], xmm3
 cmp [rsi], rcx
 jne l_fail
 cmp [rsi+8], rcx
 jne l_fail
 mov al, 'e'
 call l_send
 lar eax, word ptr [l_sel_at]
 jnz l_fail
 and eax, 0xFF00
 cmp eax, 0x9300
 jne l_fail
 mov al, 'f'
 call l_send
 mov edi, 0x380000
 mov eax, offset l_h14_at
 mov edx, eax
 and edx, 0xFFFF
 or edx, 0x80000
 mov [rdi+14*16], edx
 and eax, 0xFFFF0000
 or eax, 0x8E00
 mov [rdi+14*16+4], eax
 mov qword ptr [rdi+14*16+8], 0
 lidt [l_idtr_at]
 popcnt rax, [0x800000]
 mov al, 'h'
 call l_send
 mov dx, 0x604
 mov ax, 0x2000
 out dx, ax
l_stop:
 cli
 hlt
 jmp l_stop
l_fail:
 mov al, '!'
 call l_send
 jmp l_stop
l_send:
 mov edx, 0x3F8
 out dx, al
 mov rdx, 0x2222222222222222
 ret
l_h14:
 pop rax
 test eax, eax
 jnz l_fail
 mov rax, cr2
 cmp rax, 0x800000
 jne l_fail
 mov al, 'g'
 call l_send
 add qword ptr [rsp], 10
 iretq
.align 8
l_gdt:
 .quad 0
 .quad 0x00AF9B000000FFFF
 .quad 0x00CF93000000FFFF
l_idtr:
 .word 255
 .quad 0x380000
l_gdtr:
 .word 23
 .long l_gdt_at
l_sel: .word 0x10
cguest_long_end:

.set l_h14_at, l_h14 - l_start + 0x100000
.set l_idtr_at, l_idtr - l_start + 0x100000
.set l_gdtr_at, l_gdtr - l_start + 0x100000
.set l_gdt_at, l_gdt - l_start + 0x100000
.set l_long_at, l_long - l_start + 0x100000
.set l_sel_at, l_sel - l_start + 0x100000

// Firmware of 64 KiB below 4 GiB, with 16 KiB of flash below itself. Says 'n' on the serial
// port when the flash was new, and writes it, else 'o'; then resets the machine.
.globl cguest_flash
.globl cguest_flash_end
cguest_flash:
.code16
f_start:
 cli
 .byte 0x2E, 0x66, 0x0F, 0x01, 0x16
 .word f_gdtr - f_start
 mov eax, cr0
 or al, 1
 mov cr0, eax
 .byte 0x66, 0xEA
 .long f_protected - f_start + 0xFFFF0000
 .word 8
.code32
f_protected:
 mov eax, 0x10
 mov ds, eax
 mov edi, 0xFFFEC000
 mov byte ptr [edi+5], 0x50
 mov byte ptr [edi+5], 0x70
 cmp byte ptr [edi+5], 0
 jne f_fail
 mov byte ptr [edi+5], 0xFF
 mov al, 'o'
 cmp byte ptr [edi+0x1000], 0xFF
 jne f_done
 mov byte ptr [edi+0x1000], 0x10
 mov byte ptr [edi+0x1000], 0x41
 mov byte ptr [edi+0x1000], 0xFF
 cmp byte ptr [edi+0x1000], 0x41
 jne f_fail
 mov al, 'n'
 jmp f_done
f_fail:
 mov al, '!'
f_done:
 mov edx, 0x3F8
 out dx, al
 mov edx, 0xCF9
 mov al, 6
 out dx, al
f_stop:
 hlt
 jmp f_stop
.align 8
f_gdt:
 .quad 0
 .quad 0x00CF9B000000FFFF
 .quad 0x00CF93000000FFFF
f_gdtr:
 .word 23
 .long f_gdt - f_start + 0xFFFF0000
cguest_flash_end:

.section .note.GNU-stack,"",@progbits
