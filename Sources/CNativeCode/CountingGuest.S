// A boot sector for a disk of 64 KiB or more on IDE, which counts in memory and on the disk
// for ever. Each number is written to a page and to a sector, one of 64 after the other; then
// those that are next must have the same number as each other, or it switches off.
.intel_syntax noprefix
.section .rodata

.set buffer, 0x8000
.set first_sector, 64
.set pages, 0x1000           // their segment; a page is 0x100 further on

.globl cguest_counting
.globl cguest_counting_end
cguest_counting:
.code16
 cli
 cld
 xor ax, ax
 mov ds, ax
 mov ss, ax
 mov sp, 0x7C00
 xor ebx, ebx
n_clear:
 call n_page
 mov dword ptr es:[0], 0
 inc ebx
 test bl, 63
 jnz n_clear
 xor ebx, ebx

n_next:
 inc ebx
 call n_page
 mov es:[0], ebx
 mov [buffer], ebx
 call n_select
 mov al, 0x30                // WRITE SECTORS
 out dx, al
 call n_data
 mov si, buffer
 mov dx, 0x1F0
 mov cx, 256
 rep outsw
 call n_end
 inc ebx
 call n_select
 mov al, 0x20                // READ SECTORS
 out dx, al
 call n_data
 push ds
 pop es
 mov di, buffer
 mov dx, 0x1F0
 mov cx, 256
 rep insw
 call n_end
 call n_page
 dec ebx
 mov eax, [buffer]
 cmp eax, es:[0]
 je n_next
n_fail:
 mov dx, 0x604               // PM1a_CNT: S5
 mov ax, 0x2000
 out dx, ax
 hlt
 jmp n_fail

// ES is the page of number EBX.
n_page:
 mov ax, bx
 and ax, 63
 shl ax, 8
 add ax, pages
 mov es, ax
 ret

// The sector of number EBX; DX is the command register then.
n_select:
 mov dx, 0x1F2
 mov al, 1
 out dx, al
 inc dx
 mov al, bl
 and al, 63
 add al, first_sector
 out dx, al
 inc dx
 xor al, al
 out dx, al
 inc dx
 out dx, al
 inc dx
 mov al, 0xE0
 out dx, al
 inc dx
 ret

// Waits until data can go.
n_data:
 mov dx, 0x1F7
1:
 in al, dx
 test al, 0x01               // ERR
 jnz n_fail
 and al, 0x88                // BSY, DRQ
 cmp al, 0x08
 jne 1b
 ret

// Waits for the end of a command.
n_end:
 mov dx, 0x1F7
1:
 in al, dx
 test al, 0x80
 jnz 1b
 test al, 0x01
 jnz n_fail
 ret

.fill 510 - (. - cguest_counting), 1, 0
.word 0xAA55
cguest_counting_end:
.code64
