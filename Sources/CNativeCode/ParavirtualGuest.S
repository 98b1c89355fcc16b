// A guest for tests, to be loaded at 1 MiB and entered in 32-bit protected mode. It uses what
// KVM offers guests beyond a PC, and the local APIC's TSC deadline, before and after it was
// saved, and tells how far it came by letters on the first serial port, or ends with '!'.
//
// It waits for a byte; says which of steal time (1) and end-of-interrupt (2) CPUID offers, as a
// digit; 'c' and 's' when KVM wrote its clock and steal time; 'e' when KVM took an end of
// interrupt that was only noted in memory, or 'w' when it asked for one that is written; 'a'
// when the deadline is armed, some seconds ahead. Another byte, and it says 'm' when KVM still
// knows the places of all three, and 'd' when the deadline is what it was and has not come; 'c',
// 's' and 'e' or 'w' again; and 't' when its interrupt came, not before its time.
.intel_syntax noprefix
.section .rodata

.set v_clock, 0x201000
.set v_steal, 0x202000
.set v_eoi, 0x203000
.set v_idt, 0x204000
.set v_deadline, 0x205000
.set v_timer_came, 0x205008
.set v_ipi_came, 0x20500C
.set v_was_noted, 0x205010
.set v_known, 0x205014
.set v_apic, 0xFEE00000

.globl cguest_paravirtual
.globl cguest_paravirtual_end
cguest_paravirtual:
.code32
v_start:
 cli
 mov esp, 0x90000
 lgdt [v_gdtr_at]
 .byte 0xEA
 .long v_flat_at
 .word 8
v_flat:
 mov eax, 0x10
 mov ds, eax
 mov es, eax
 mov ss, eax
 mov eax, offset v_timer_at
 mov ecx, 0x40
 call v_gate
 mov eax, offset v_ipi_at
 mov ecx, 0x41
 call v_gate
 lidt [v_idtr_at]
 mov dword ptr [v_apic + 0xF0], 0x1FF
 call v_wait
 mov eax, 0x40000001
 cpuid
 shr eax, 5
 and eax, 3
 add eax, '0'
 call v_send

 mov eax, v_clock + 1
 mov ecx, 0x4B564D01
 call v_write
 mov eax, v_steal + 1
 mov ecx, 0x4B564D03
 call v_write
 mov eax, v_eoi + 1
 mov ecx, 0x4B564D04
 call v_write
 call v_use

 // LVT timer: TSC deadline, vector 0x40.
 mov dword ptr [v_apic + 0x320], 0x40040
 rdtsc
 add edx, 2
 mov [v_deadline], eax
 mov [v_deadline + 4], edx
 mov ecx, 0x6E0
 wrmsr
 mov al, 'a'
 call v_send

 call v_wait
 mov ecx, 0x4B564D01
 mov ebx, v_clock + 1
 call v_check
 mov ecx, 0x4B564D03
 mov ebx, v_steal + 1
 call v_check
 mov ecx, 0x4B564D04
 mov ebx, v_eoi + 1
 call v_check
 mov al, 'm'
 call v_send
 mov ecx, 0x6E0
 rdmsr
 cmp eax, [v_deadline]
 jne v_fail
 cmp edx, [v_deadline + 4]
 jne v_fail
 cmp dword ptr [v_timer_came], 0
 jne v_fail
 mov al, 'd'
 call v_send
 call v_use
v_idle:
 cli
 cmp dword ptr [v_timer_came], 0
 jne v_awake
 sti
 hlt
 jmp v_idle
v_awake:
 rdtsc
 sub eax, [v_deadline]
 sbb edx, [v_deadline + 4]
 js v_fail
 mov al, 't'
 call v_send
v_off:
 mov dx, 0x604
 mov ax, 0x2000
 out dx, ax
v_stop:
 cli
 hlt
 jmp v_stop
v_fail:
 mov al, '!'
 call v_send
 jmp v_off

// KVM writes its clock, which has another version then, and steal time; and an interrupt of
// its own ends, without an EOI where KVM lets it.
v_use:
 mov edi, v_clock
 mov ebx, [v_known]
 call v_await
 mov eax, [v_clock]
 // While it is written it is odd.
 test eax, 1
 jnz v_fail
 mov [v_known], eax
 mov al, 'c'
 call v_send
 xor ebx, ebx
 mov [v_steal + 8], ebx
 mov edi, v_steal + 8
 call v_await
 test dword ptr [v_steal + 8], 1
 jnz v_fail
 mov al, 's'
 call v_send
 mov dword ptr [v_ipi_came], 0
 mov dword ptr [v_apic + 0x300], 0x40041
 sti
 mov edi, v_ipi_came
 call v_await
 cli
 // It is out of the in-service register, also when nobody wrote the APIC's.
 mov ecx, 100000
v_in_service:
 dec ecx
 jz v_fail
 call v_status
 test dword ptr [v_apic + 0x120], 2
 jnz v_in_service
 mov al, 'e'
 cmp dword ptr [v_was_noted], 0
 jne v_ended
 mov al, 'w'
v_ended:
 call v_send
 ret

// Until the word at EDI is not EBX.
v_await:
 mov ecx, 1000000
v_await_again:
 dec ecx
 jz v_fail
 call v_status
 cmp [edi], ebx
 je v_await_again
 ret

v_write:
 xor edx, edx
 wrmsr
 ret
v_check:
 rdmsr
 cmp eax, ebx
 jne v_fail
 test edx, edx
 jnz v_fail
 ret
v_wait:
 call v_status
 test al, 1
 jz v_wait
 mov dx, 0x3F8
 in al, dx
 ret
// The serial port's line status: an exit to the host.
v_status:
 mov dx, 0x3FD
 in al, dx
 ret
v_send:
 mov dx, 0x3F8
 out dx, al
 ret
v_gate:
 mov edx, eax
 and edx, 0xFFFF
 or edx, 0x80000
 mov [v_idt + ecx*8], edx
 and eax, 0xFFFF0000
 or eax, 0x8E00
 mov [v_idt + ecx*8 + 4], eax
 ret

v_timer:
 mov dword ptr [v_timer_came], 1
 mov dword ptr [v_apic + 0xB0], 0
 iretd
v_ipi:
 push eax
 xor eax, eax
 btr dword ptr [v_eoi], 0
 setc al
 mov [v_was_noted], eax
 jc v_ipi_end
 mov dword ptr [v_apic + 0xB0], 0
v_ipi_end:
 mov dword ptr [v_ipi_came], 1
 pop eax
 iretd
.align 8
v_gdt:
 .quad 0
 .quad 0x00CF9B000000FFFF
 .quad 0x00CF93000000FFFF
v_gdtr:
 .word 23
 .long v_gdt_at
v_idtr:
 .word 0x41 * 8 + 7
 .long v_idt
cguest_paravirtual_end:

.set v_gdtr_at, v_gdtr - v_start + 0x100000
.set v_flat_at, v_flat - v_start + 0x100000
.set v_timer_at, v_timer - v_start + 0x100000
.set v_ipi_at, v_ipi - v_start + 0x100000
.set v_gdt_at, v_gdt - v_start + 0x100000
.set v_idtr_at, v_idtr - v_start + 0x100000

.section .note.GNU-stack,"",@progbits
