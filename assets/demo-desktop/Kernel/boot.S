// Everything that runs in ring 0, and it is little: some hosts interpret kernel
// code at two million instructions a second while ring 3 runs natively. So all
// tables are laid out at build time, interrupt handlers only set a bit, and the
// desktop itself, drivers included, is ring 3 code with every I/O port open.

        .set    KERNEL_CODE, 0x08
        .set    KERNEL_DATA, 0x10
        .set    USER_DATA, 0x18 | 3
        .set    USER_CODE, 0x20 | 3
        .set    TASK, 0x28
        .set    WAIT_REQUEST, 0x74696177        // EAX at UD2: "wait"

// PVH entry point (Xen public headers, elfnote.h: XEN_ELFNOTE_PHYS32_ENTRY).
        .section .note.pvh, "a", @note
        .balign 4
        .long   4, 8, 18
        .asciz  "Xen"
        .quad   pvh_start

        .section .text.kernel, "ax"
        .code32
        .globl  pvh_start
// EBX holds the physical address of hvm_start_info; paging is off.
pvh_start:
        cli
        cld
        movw    $0x3F8, %dx                     // COM1: a first sign of life
        movb    $0x0A, %al
        outb    %al, %dx
        movl    %ebx, start_info
        movl    $kernel_stack_top, %esp
        movl    $0x620, %eax                    // PAE, OSFXSR, OSXMMEXCPT
        movl    %eax, %cr4
        movl    $page_map, %eax
        movl    %eax, %cr3
        movl    $0xC0000080, %ecx               // EFER.LME
        xorl    %edx, %edx
        movl    $0x100, %eax
        wrmsr
        movl    $0x80010033, %eax               // PG, WP, NE, ET, MP, PE
        movl    %eax, %cr0
        lgdt    gdt_pointer
        ljmp    $KERNEL_CODE, $long_mode

        .code64
long_mode:
        movl    $KERNEL_DATA, %eax
        movl    %eax, %ss
        xorl    %eax, %eax
        movl    %eax, %fs
        movl    %eax, %gs
        movl    $USER_DATA, %eax
        movl    %eax, %ds
        movl    %eax, %es

        // The 64-bit TSS descriptor scatters its base; the IDT its offsets.
        movl    $task_state, %eax
        movw    %ax, gdt + TASK + 2
        shrl    $16, %eax
        movb    %al, gdt + TASK + 4
        movb    %ah, gdt + TASK + 7
        movl    $TASK, %eax
        ltr     %ax

        movl    $idt, %edi
        movl    $exception_stubs, %eax
        movl    $48, %ecx
1:      movl    %eax, %edx
        movw    %dx, (%rdi)
        movw    $KERNEL_CODE, 2(%rdi)
        movw    $0x8E00, 4(%rdi)                // present interrupt gate, DPL 0
        shrl    $16, %edx
        movw    %dx, 6(%rdi)
        addl    $16, %eax
        addl    $16, %edi
        decl    %ecx
        jnz     1b
        lidt    idt_pointer

        // 8259A pair at vectors 32 and 40, automatic end of interrupt, so that a
        // handler need not touch a port. Drivers unmask what they use.
        movb    $0x11, %al
        outb    %al, $0x20
        outb    %al, $0xA0
        movb    $32, %al
        outb    %al, $0x21
        movb    $40, %al
        outb    %al, $0xA1
        movb    $4, %al
        outb    %al, $0x21
        movb    $2, %al
        outb    %al, $0xA1
        movb    $3, %al
        outb    %al, $0x21
        outb    %al, $0xA1
        movb    $0xFB, %al
        outb    %al, $0x21
        movb    $0xFF, %al
        outb    %al, $0xA1

        // Virtual wire mode: the local APIC passes the PIC's interrupts on.
        movl    $0xFEE00000, %eax
        orl     $0x100, 0xF0(%rax)
        movl    $0x700, 0x350(%rax)

        pushq   $USER_DATA
        pushq   $user_stack_top - 8             // as after a CALL: 16n + 8
        pushq   $0x202
        pushq   $USER_CODE
        pushq   $desktop_main
        iretq

// UD2 with EAX = WAIT_REQUEST at ring 3: sleep until an interrupt is pending.
// Gates leave interrupts off, so nothing slips in between test and HLT.
wait_or_trap:
        cmpl    $WAIT_REQUEST, %eax
        jne     undefined_opcode
        addq    $2, (%rsp)
        cmpl    $0, pending_interrupts
        jne     1f
        sti
        hlt
1:      iretq

// A fault of the desktop: go on in ring 3 at desktop_fault(vector, RIP, address).
undefined_opcode:
        movl    $6, %edi
        pushq   $0
        jmp     2f
fault:                                          // stack: vector, error code, RIP
        popq    %rdi
2:      movq    8(%rsp), %rsi
        movq    %cr2, %rdx
        pushq   $USER_DATA
        pushq   $user_stack_top - 8
        pushq   $0x202
        pushq   $USER_CODE
        pushq   $desktop_fault
        iretq

        .balign 16
exception_stubs:
        .set    vector, 0
        .rept   32
        .balign 16
        .if vector == 6
        jmp     wait_or_trap
        .else
        .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
        pushq   $0
        .endif
        pushq   $vector
        jmp     fault
        .endif
        .set    vector, vector + 1
        .endr

        .set    line, 0
        .rept   16
        .balign 16
        .if line == 9
        jmp     acpi_interrupt
        .else
        orl     $1 << line, pending_interrupts
        iretq
        .endif
        .set    line, line + 1
        .endr

// The ACPI interrupt is level triggered: mask it until its driver has looked.
        .balign 16
acpi_interrupt:
        pushq   %rax
        inb     $0xA1, %al
        orb     $2, %al
        outb    %al, $0xA1
        popq    %rax
        orl     $1 << 9, pending_interrupts
        iretq

        .section .tables, "aw"
        .balign 4096
// The first 4 GiB, identity-mapped in 2 MiB pages that ring 3 may use.
page_map:
        .quad   page_pointers + 0x27
        .fill   511, 8, 0
page_pointers:
        .quad   page_directory + 0x0027, page_directory + 0x1027
        .quad   page_directory + 0x2027, page_directory + 0x3027
        .fill   508, 8, 0
page_directory:
        .set    page, 0
        .rept   2048
        .quad   (page << 21) + 0xE7
        .set    page, page + 1
        .endr

        .balign 16
gdt:    .quad   0
        .quad   0x00AF9B000000FFFF              // 64-bit code, ring 0
        .quad   0x00CF93000000FFFF              // data, ring 0
        .quad   0x00CFF3000000FFFF              // data, ring 3
        .quad   0x00AFFB000000FFFF              // 64-bit code, ring 3
        .word   task_state_end - task_state - 1, 0
        .byte   0, 0x89, 0, 0
        .quad   0
gdt_end:
gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt
        .balign 16
idt_pointer:
        .word   48 * 16 - 1
        .quad   idt
        .balign 16
idt:    .fill   48 * 2, 8, 0

        .balign 16
task_state:
        .long   0
        .quad   kernel_stack_top, 0, 0
        .fill   9, 8, 0
        .word   0
        .word   104                             // I/O permission bitmap: all open
        .fill   8192, 1, 0
        .byte   0xFF
task_state_end:

        .balign 8
        .globl  start_info
start_info:
        .quad   0
        .globl  pending_interrupts
pending_interrupts:
        .long   0

        .section .bss, "aw", @nobits
        .balign 16
        .skip   4096
kernel_stack_top:
        .balign 4096
        .skip   256 * 1024
user_stack_top:

        .section .art, "a"
        .balign 16
        .globl  art_start
art_start:
        .incbin "art.bin"

        .section .note.GNU-stack, "", @progbits
