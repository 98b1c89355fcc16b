// A guest that writes to its memory as fast as the processor can, loaded at 1 MiB and entered in
// 32-bit protected mode; to have no interpreter slow it down, it does so in user mode. Each
// round writes the round's number to the first word of each page, one page after the other, and
// ends with '.' on the first serial port; a page that has not the number of the round before
// ends it with '!'. Bytes 4 to 7 of the guest are how many pages there are, from 16 MiB on.
.intel_syntax noprefix
.section .rodata

.set tables, 0x200000        // of pages; 2 GiB are mapped to where they are
.set interrupts, 0x380000
.set task, 0x381000

.globl cguest_writing
.globl cguest_writing_end
cguest_writing:
.code32
w_start:
 jmp w_begin
 .org w_start + 4
w_pages:
 .long 0
w_begin:
 mov esp, 0x90000
 lgdt [w_gdtr_at]
 mov edi, tables
 mov dword ptr [edi], tables + 0x1007
 mov dword ptr [edi+0x1000], tables + 0x2007
 mov dword ptr [edi+0x1008], tables + 0x3007
 mov eax, 0x87
 mov ecx, 1024
w_map:
 mov [edi+0x2000], eax
 add eax, 0x200000
 add edi, 8
 dec ecx
 jnz w_map
 mov eax, cr4
 or eax, 0x220
 mov cr4, eax
 mov eax, tables
 mov cr3, eax
 mov ecx, 0xC0000080
 rdmsr
 or eax, 0x100
 wrmsr
 mov eax, cr0
 or eax, 0x80000000
 mov cr0, eax
 .byte 0xEA
 .long w_long_at
 .word 8
.code64
w_long:
 mov eax, 0x10
 mov ds, eax
 mov es, eax
 mov ss, eax
 mov rsp, 0x90000
 mov edi, interrupts
 mov eax, offset w_told_at
 mov edx, eax
 and edx, 0xFFFF
 or edx, 0x80000
 mov [rdi+6*16], edx
 and eax, 0xFFFF0000
 or eax, 0x8E00
 mov [rdi+6*16+4], eax
 mov qword ptr [rdi+6*16+8], 0
 lidt [w_idtr_at]
 mov edi, task
 mov dword ptr [rdi+4], 0x90000
 mov eax, 0x28
 ltr ax
 push 0x1B
 push 0x80000
 push 2
 push 0x23
 lea rax, [rip+w_user]
 push rax
 iretq

// Ring 3, without interrupts.
w_user:
 mov ebp, [rip+w_pages]
 xor ebx, ebx
w_round:
 lea eax, [rbx+1]
 mov edi, 0x1000000
 mov ecx, ebp
w_page:
 cmp [rdi], ebx
 jne w_fail
 mov [rdi], eax
 add rdi, 4096
 dec ecx
 jnz w_page
 mov ebx, eax
 mov al, '.'
 ud2
 jmp w_round
w_fail:
 mov al, '!'
 ud2

// UD2 in ring 3 sends AL.
w_told:
 mov edx, 0x3F8
 out dx, al
 cmp al, '!'
 je w_stop
 add qword ptr [rsp], 2
 iretq
w_stop:
 hlt
 jmp w_stop
.align 8
w_gdt:
 .quad 0
 .quad 0x00AF9B000000FFFF
 .quad 0x00CF93000000FFFF
 .quad 0x00CFF3000000FFFF
 .quad 0x00AFFB000000FFFF
 .quad 0x0000893810000067     // the task at 0x381000
 .quad 0
w_gdtr:
 .word 55
 .long w_gdt_at
w_idtr:
 .word 255
 .quad interrupts
cguest_writing_end:

.set w_gdtr_at, w_gdtr - w_start + 0x100000
.set w_gdt_at, w_gdt - w_start + 0x100000
.set w_idtr_at, w_idtr - w_start + 0x100000
.set w_long_at, w_long - w_start + 0x100000
.set w_told_at, w_told - w_start + 0x100000

.section .note.GNU-stack,"",@progbits
