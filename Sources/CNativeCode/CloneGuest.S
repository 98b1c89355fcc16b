// A guest whose copies can be told apart, loaded at 1 MiB and entered in 32-bit protected mode.
// It says 'R' on the first serial port and halts. To each byte that comes it answers: to 'i'
// with who it is (see c_identity), to 'd' by changing 256 pages and 'd', to any other one with
// that byte and 0x55 in exclusive or.
.intel_syntax noprefix
.section .rodata

.set selector, 0x300000      // of the fw_cfg file opt/carrel/h…
.set notices, 0x300004       // of other generations
.set requests, 0x300008      // made to the entropy device
.set entropy, 0x30000c       // where its registers are
.set network, 0x300010       // where the network card's are; 0 without
.set rings, 0x310000
.set random, 0x320000
.set pages, 0x400000

.globl cguest_clone
.globl cguest_clone_end
cguest_clone:
.code32
c_start:
 mov esp, 0x90000
 lgdt [c_gdtr_at]
 .byte 0xEA
 .long c_flat_at
 .word 8
c_flat:
 mov eax, 0x10
 mov ds, eax
 mov es, eax
 mov ss, eax
 mov edi, 0x200000
 mov eax, offset c_serial_at
 mov ecx, 0x24
 call c_gate
 mov eax, offset c_notice_at
 mov ecx, 0x29
 call c_gate
 lidt [c_idtr_at]
// Both PICs: ICW1 to ICW4; serial, cascade and SCI let through.
 mov al, 0x11
 out 0x20, al
 out 0xA0, al
 mov al, 0x20
 out 0x21, al
 mov al, 0x28
 out 0xA1, al
 mov al, 4
 out 0x21, al
 mov al, 2
 out 0xA1, al
 mov al, 1
 out 0x21, al
 out 0xA1, al
 mov al, 0xEB
 out 0x21, al
 mov al, 0xFD
 out 0xA1, al
// ACPI mode, and the generation's event.
 mov edx, 0xB2
 mov al, 0xF1
 out dx, al
 mov edx, 0x60E
 mov eax, 0x20
 out dx, ax
 call c_find_file
// The entropy device is function 2 of device 15, the first network card device 24.
 mov eax, 0x80007A00
 call c_find_card
 mov [entropy], ebx
 mov byte ptr [ebx+0x14], 3
 mov dword ptr [ebx+8], 1
 mov dword ptr [ebx+12], 1
 mov byte ptr [ebx+0x14], 11
 mov word ptr [ebx+0x16], 0
 mov word ptr [ebx+0x18], 8
 mov dword ptr [ebx+0x20], rings
 mov dword ptr [ebx+0x24], 0
 mov dword ptr [ebx+0x28], rings + 0x1000
 mov dword ptr [ebx+0x2C], 0
 mov dword ptr [ebx+0x30], rings + 0x2000
 mov dword ptr [ebx+0x34], 0
 mov word ptr [ebx+0x1C], 1
 mov byte ptr [ebx+0x14], 15
 mov dword ptr [rings], random
 mov dword ptr [rings+8], 16
 mov dword ptr [rings+12], 2
 mov dword ptr [rings+0x1000], 1
 mov eax, 0x8000C000
 call c_find_card
 mov [network], ebx
// Interrupts of the serial port: data, through OUT2.
 mov edx, 0x3F9
 mov al, 1
 out dx, al
 mov edx, 0x3FC
 mov al, 11
 out dx, al
 mov al, 'R'
 call c_send
c_wait:
 sti
 hlt
 jmp c_wait

c_notice:
 inc dword ptr [notices]
 mov edx, 0x60C
 mov eax, 0x20
 out dx, ax
 mov al, 0x20
 out 0xA0, al
 out 0x20, al
 add esp, 12
 jmp c_wait

c_serial:
 mov edx, 0x3FD
 in al, dx
 test al, 1
 jz c_served
 mov edx, 0x3F8
 in al, dx
 cmp al, 'i'
 je c_identify
 cmp al, 'd'
 je c_dirty
 xor al, 0x55
 call c_send
 jmp c_serial
c_identify:
 call c_identity
 jmp c_serial
c_dirty:
 mov edi, pages
 mov ecx, 256
c_page:
 inc dword ptr [edi]
 add edi, 4096
 dec ecx
 jnz c_page
 call c_send
 jmp c_serial
c_served:
 mov al, 0x20
 out 0x20, al
 add esp, 12
 jmp c_wait

// 16 random bytes, the 16 of the generation identifier, the card's address and status, the
// UUID that fw_cfg has, 16 bytes of the file, notices, the first of the pages that 'd'
// changes, and the clock's seconds, minutes and hours.
c_identity:
 mov ebx, [entropy]
 inc dword ptr [requests]
 mov eax, [requests]
 mov [rings+0x1002], ax
 mov word ptr [ebx+0x3000], 0
c_random:
 cmp [rings+0x2002], ax
 jne c_random
 mov esi, random
 mov ecx, 16
 call c_send_bytes
 mov esi, 0xEF028
 mov ecx, 16
 call c_send_bytes
 mov ebp, [network]
 mov ecx, 7
 lea esi, [ebp+0x2000]
 call c_send_bytes
 mov eax, 2
 call c_send_item
 mov eax, [selector]
 call c_send_item
 mov al, [notices]
 call c_send
 mov al, [pages]
 call c_send
 xor ecx, ecx
c_clock:
 mov eax, ecx
 out 0x70, al
 in al, 0x71
 call c_send
 add ecx, 2
 cmp ecx, 6
 jne c_clock
 ret

c_send_bytes:
 mov al, [esi]
 call c_send
 inc esi
 dec ecx
 jnz c_send_bytes
 ret

// 16 bytes of the fw_cfg item in EAX.
c_send_item:
 mov edx, 0x510
 out dx, ax
 mov ecx, 16
c_item:
 mov edx, 0x511
 in al, dx
 call c_send
 dec ecx
 jnz c_item
 ret

c_send:
 mov ah, al
 mov edx, 0x3FD
c_full:
 in al, dx
 test al, 0x20
 jz c_full
 mov al, ah
 mov edx, 0x3F8
 out dx, al
 ret

// The registers of the PCI function in EAX, to EBX, with its memory and bus mastering on.
c_find_card:
 mov edi, eax
 or eax, 0x20
 mov edx, 0xCF8
 out dx, eax
 mov edx, 0xCFC
 in eax, dx
 and al, 0xF0
 mov ebx, eax
 lea eax, [edi+4]
 mov edx, 0xCF8
 out dx, eax
 mov edx, 0xCFC
 mov eax, 6
 out dx, ax
 ret

// Looks for a file whose name has 'h' after "opt/carrel/" in fw_cfg's directory.
c_find_file:
 mov dword ptr [selector], 0xFFFF
 mov eax, 0x19
 mov edx, 0x510
 out dx, ax
 mov edx, 0x511
 in al, dx
 in al, dx
 in al, dx
 in al, dx
 movzx ebp, al
c_entry:
 test ebp, ebp
 jz c_found
 dec ebp
 mov edi, 0x330000
 mov ecx, 64
c_byte:
 in al, dx
 mov [edi], al
 inc edi
 dec ecx
 jnz c_byte
 cmp byte ptr [0x330008], 'o'
 jne c_entry
 cmp byte ptr [0x330013], 'h'
 jne c_entry
 mov ax, [0x330004]
 xchg al, ah
 mov [selector], ax
 jmp c_entry
c_found:
 ret

c_gate:
 mov edx, eax
 and edx, 0xFFFF
 or edx, 0x80000
 mov [edi+ecx*8], edx
 and eax, 0xFFFF0000
 or eax, 0x8E00
 mov [edi+ecx*8+4], eax
 ret
.align 8
c_gdt:
 .quad 0
 .quad 0x00CF9B000000FFFF
 .quad 0x00CF93000000FFFF
c_gdtr:
 .word 23
 .long c_gdt_at
c_idtr:
 .word 0x17F
 .long 0x200000
cguest_clone_end:

.set c_gdtr_at, c_gdtr - c_start + 0x100000
.set c_flat_at, c_flat - c_start + 0x100000
.set c_serial_at, c_serial - c_start + 0x100000
.set c_notice_at, c_notice - c_start + 0x100000
.set c_gdt_at, c_gdt - c_start + 0x100000
.set c_idtr_at, c_idtr - c_start + 0x100000

.section .note.GNU-stack,"",@progbits
