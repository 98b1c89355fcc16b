// A guest that answers as QEMU's guest agent does, over the channel of the virtio console that
// is function 4 of device 15. It is loaded at 1 MiB, entered in 32-bit protected mode, and
// halts between ticks of the timer. Of what it is asked it does this:
//
// guest-sync-delimited    repeats the token
// guest-exec hostname     takes the name; the program ends when it was asked for three times
// guest-exec, else        ends at once: with 0 if the command names a file whose name starts
//                         with "/there", from the third time on with "/later"; else with 1
// guest-info              its version is the host name it took, then two digits: whether the
//                         cable of the card in device 24 was plugged in when it had taken it,
//                         and whether it is now
// all others              says that it is done
.intel_syntax noprefix
.section .rodata

.set taken, 0x300000         // of each queue's used ring, at 4 bytes for each
.set queued, 0x300020        // in each queue's available ring
.set console, 0x300040       // where its registers are
.set network, 0x300044       // the network card's; 0 without
.set length, 0x300048        // of the line
.set rest, 0x30004C          // how often the program is to be asked for yet
.set result, 0x300050        // what it ends with
.set later, 0x300054         // how often it was looked for
.set cable, 0x300058         // as it was when the host name was taken, as a digit
.set name, 0x300080
.set wanted, 0x3000C0
.set answer, 0x301000
.set line, 0x302000
.set line_size, 0x1000
.set rings, 0x310000         // of queue 2 and those behind it, 4 pages for each
.set buffers, 0x3000         // in these

.globl cguest_agent
.globl cguest_agent_end
cguest_agent:
.code32
a_start:
 mov esp, 0x90000
 lgdt [a_gdtr_at]
 .byte 0xEA
 .long a_flat_at
 .word 8
a_flat:
 mov eax, 0x10
 mov ds, eax
 mov es, eax
 mov ss, eax
 cld
 mov edi, 0x200000
 mov eax, offset a_tick_at
 mov edx, eax
 and edx, 0xFFFF
 or edx, 0x80000
 mov [edi+0x20*8], edx
 and eax, 0xFFFF0000
 or eax, 0x8E00
 mov [edi+0x20*8+4], eax
 lidt [a_idtr_at]
 mov dword ptr [name], 0x656E6F6E  // "none"
 mov byte ptr [cable], '-'
 mov eax, 0x8000C000
 call a_find_card
 mov [network], ebx
 mov eax, 0x80007C00
 call a_find_card
 mov [console], ebx
 mov byte ptr [ebx+0x14], 3
 mov dword ptr [ebx+8], 0
 mov dword ptr [ebx+12], 2         // VIRTIO_CONSOLE_F_MULTIPORT
 mov dword ptr [ebx+8], 1
 mov dword ptr [ebx+12], 1         // VIRTIO_F_VERSION_1
 mov byte ptr [ebx+0x14], 11
 mov ecx, 2
a_queue:
 mov [ebx+0x16], cx
 mov word ptr [ebx+0x18], 8
 call a_rings
 mov [ebx+0x20], edi
 mov dword ptr [ebx+0x24], 0
 lea eax, [edi+0x1000]
 mov [ebx+0x28], eax
 mov dword ptr [ebx+0x2C], 0
 add eax, 0x1000
 mov [ebx+0x30], eax
 mov dword ptr [ebx+0x34], 0
 mov word ptr [ebx+0x1C], 1
 inc ecx
 cmp ecx, 6
 jne a_queue
 mov byte ptr [ebx+0x14], 15
// Eight places for control messages, and for what the host sends.
 mov ecx, 2
 call a_offer_all
 mov ecx, 4
 call a_offer_all
// The device is ready; so is port 1, which is open.
 mov eax, 0
 mov edx, 0x10000
 call a_control
 mov eax, 1
 mov edx, 0x10003
 call a_control
 mov eax, 1
 mov edx, 0x10006
 call a_control
// Both PICs: ICW1 to ICW4; the timer alone is let through, a hundred times a second.
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
 mov al, 0xFE
 out 0x21, al
 mov al, 0xFF
 out 0xA1, al
 mov al, 0x34
 out 0x43, al
 mov al, 0x9C
 out 0x40, al
 mov al, 0x2E
 out 0x40, al
a_wait:
 sti
 hlt
 cli
 call a_control_in
 call a_data_in
 jmp a_wait

a_tick:
 push eax
 mov al, 0x20
 out 0x20, al
 pop eax
 iretd

// The rings of queue ECX, to EDI.
a_rings:
 mov edi, ecx
 sub edi, 2
 shl edi, 14
 add edi, rings
 ret

// Tells queue ECX that something is available.
a_notify:
 mov ebx, [console]
 mov [ebx+ecx*4+0x3000], cx
 ret

// Eight places of 512 bytes for what queue ECX receives.
a_offer_all:
 call a_rings
 xor edx, edx
a_place:
 mov eax, edx
 shl eax, 9
 lea eax, [eax+edi+buffers]
 mov ebx, edx
 shl ebx, 4
 mov [edi+ebx], eax
 mov dword ptr [edi+ebx+4], 0
 mov dword ptr [edi+ebx+8], 512
 mov dword ptr [edi+ebx+12], 2     // VIRTQ_DESC_F_WRITE
 mov [edi+edx*2+0x1004], dx
 inc edx
 cmp edx, 8
 jne a_place
 mov [queued+ecx*4], edx
 mov [edi+0x1002], dx
 jmp a_notify

// The next place that queue ECX filled: it is at ESI, its number in EDX and the count in EAX.
// The zero flag is set when there is none.
a_next:
 call a_rings
 mov eax, [taken+ecx*4]
 cmp [edi+0x2002], ax
 je a_none
 and eax, 7
 mov edx, [edi+eax*8+0x2004]
 mov eax, [edi+eax*8+0x2008]
 mov esi, edx
 shl esi, 9
 lea esi, [esi+edi+buffers]
 inc dword ptr [taken+ecx*4]
 test esi, esi
a_none:
 ret

// Offers place EDX to queue ECX again.
a_offer:
 call a_rings
 mov eax, [queued+ecx*4]
 and eax, 7
 mov [edi+eax*2+0x1004], dx
 inc dword ptr [queued+ecx*4]
 mov eax, [queued+ecx*4]
 mov [edi+0x1002], ax
 jmp a_notify

a_control_in:
 mov ecx, 2
 call a_next
 jz a_done
 call a_offer
 jmp a_control_in

a_data_in:
 mov ecx, 4
 call a_next
 jz a_done
 push edx
 mov ebp, eax
a_byte:
 test ebp, ebp
 jz a_read
 dec ebp
 mov al, [esi]
 inc esi
 mov edi, [length]
 cmp al, 0xFF
 je a_reset
 cmp al, 10
 je a_line
 cmp edi, line_size - 1
 jae a_byte
 mov [line+edi], al
 inc dword ptr [length]
 jmp a_byte
a_line:
 mov byte ptr [line+edi], 0
 push esi
 push ebp
 call a_ask
 pop ebp
 pop esi
a_reset:
 mov dword ptr [length], 0
 jmp a_byte
a_read:
 pop edx
 mov ecx, 4
 call a_offer
 jmp a_data_in
a_done:
 ret

// Sends the control message whose words are EAX and EDX.
a_control:
 mov [answer], eax
 mov [answer+4], edx
 mov edi, answer + 8
 mov ecx, 3
// Sends what is from the answer's start to EDI to queue ECX, and waits until it was taken.
a_send:
 mov eax, edi
 sub eax, answer
 call a_rings
 mov dword ptr [edi], answer
 mov dword ptr [edi+4], 0
 mov [edi+8], eax
 mov dword ptr [edi+12], 0
 mov eax, [queued+ecx*4]
 and eax, 7
 mov word ptr [edi+eax*2+0x1004], 0
 inc dword ptr [queued+ecx*4]
 mov eax, [queued+ecx*4]
 mov [edi+0x1002], ax
 call a_notify
a_sending:
 cmp [edi+0x2002], ax
 jne a_sending
 mov [taken+ecx*4], eax
 ret

// Answers what is in the line.
a_ask:
 mov edi, answer
 mov esi, offset a_sync_at
 call a_find
 jnc a_synchronise
 mov esi, offset a_info_at
 call a_find
 jnc a_tell
 mov esi, offset a_status_at
 call a_find
 jnc a_state
 mov esi, offset a_exec_at
 call a_find
 jnc a_run
 mov esi, offset a_empty_at
 call a_put
a_answer:
 mov ecx, 5
 jmp a_send

a_synchronise:
 mov byte ptr [edi], 0xFF
 inc edi
 mov esi, offset a_return_at
 call a_put
 mov esi, offset a_id_at
 call a_find
 mov esi, ebx
a_digit:
 mov al, [esi]
 cmp al, '0'
 jb a_end
 cmp al, '9'
 ja a_end
 stosb
 inc esi
 jmp a_digit
a_end:
 mov esi, offset a_close_at
 call a_put
 jmp a_answer

a_tell:
 mov esi, offset a_version_at
 call a_put
 mov esi, name
 call a_put
 mov al, ' '
 stosb
 mov al, [cable]
 stosb
 call a_link
 stosb
 mov esi, offset a_commands_at
 call a_put
 jmp a_answer

a_run:
 mov dword ptr [rest], 0
 mov dword ptr [result], 1
 mov dword ptr [wanted], 0
 mov esi, offset a_hostname_at
 call a_find
 jnc a_rename
 mov esi, offset a_there_at
 call a_find
 jnc a_found
 mov esi, offset a_later_at
 call a_find
 jc a_started
 inc dword ptr [later]
 cmp dword ptr [later], 3
 jb a_started
a_found:
 mov dword ptr [result], 0
 jmp a_started
a_rename:
 mov dword ptr [result], 0
 mov dword ptr [rest], 3
 mov esi, offset a_arguments_at
 call a_find
 mov edx, wanted
a_letter:
 mov al, [ebx]
 cmp al, '"'
 je a_named
 mov [edx], al
 inc ebx
 inc edx
 cmp edx, wanted + 60
 jne a_letter
a_named:
 mov byte ptr [edx], 0
a_started:
 mov esi, offset a_pid_at
 call a_put
 jmp a_answer

a_state:
 cmp dword ptr [rest], 1
 ja a_running
 cmp byte ptr [wanted], 0
 je a_ended
 push edi
 mov esi, wanted
 mov edi, name
 mov ecx, 16
 rep movsd
 pop edi
 mov byte ptr [wanted], 0
 call a_link
 mov [cable], al
a_ended:
 mov esi, offset a_exited_at
 call a_put
 mov al, [result]
 add al, '0'
 stosb
 mov esi, offset a_close2_at
 call a_put
 jmp a_answer
a_running:
 dec dword ptr [rest]
 mov esi, offset a_runs_at
 call a_put
 jmp a_answer

// Whether the cable is plugged in, as a digit in AL.
a_link:
 mov al, '-'
 mov ebx, [network]
 test ebx, ebx
 jz a_done
 mov al, [ebx+0x2006]
 and al, 1
 add al, '0'
 ret

// Appends the text at ESI at EDI.
a_put:
 lodsb
 test al, al
 jz a_done
 stosb
 jmp a_put

// Looks for the text at ESI in the line; carry, or EBX behind it.
a_find:
 mov edx, line
a_try:
 mov ebx, edx
 xor ecx, ecx
a_same:
 mov al, [esi+ecx]
 test al, al
 jz a_is
 cmp [ebx], al
 jne a_differs
 inc ebx
 inc ecx
 jmp a_same
a_differs:
 cmp byte ptr [edx], 0
 je a_missing
 inc edx
 jmp a_try
a_missing:
 stc
 ret
a_is:
 clc
 ret

// The registers of the virtio card in EAX, to EBX, with its memory and bus mastering on; 0
// when there is none.
a_find_card:
 mov edi, eax
 xor ebx, ebx
 mov edx, 0xCF8
 out dx, eax
 mov edx, 0xCFC
 in eax, dx
 cmp ax, 0x1AF4
 jne a_done
 lea eax, [edi+0x20]
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

a_sync: .asciz "\"guest-sync-delimited\""
a_info: .asciz "\"guest-info\""
a_status: .asciz "\"guest-exec-status\""
a_exec: .asciz "\"guest-exec\""
a_id: .asciz "\"id\": "
a_hostname: .asciz "\"path\": \"hostname\""
a_arguments: .asciz "\"arg\": [\""
a_there: .asciz "\"/there"
a_later: .asciz "\"/later"
a_return: .asciz "{\"return\": "
a_close: .asciz "}\n"
a_close2: .asciz "}}\n"
a_empty: .asciz "{\"return\": {}}\n"
a_version: .asciz "{\"return\": {\"version\": \""
a_commands: .asciz "\", \"supported_commands\": []}}\n"
a_pid: .asciz "{\"return\": {\"pid\": 7}}\n"
a_runs: .asciz "{\"return\": {\"exited\": false}}\n"
a_exited: .asciz "{\"return\": {\"exited\": true, \"exitcode\": "
.align 8
a_gdt:
 .quad 0
 .quad 0x00CF9B000000FFFF
 .quad 0x00CF93000000FFFF
a_gdtr:
 .word 23
 .long a_gdt_at
a_idtr:
 .word 0x17F
 .long 0x200000
cguest_agent_end:

.set a_gdtr_at, a_gdtr - a_start + 0x100000
.set a_flat_at, a_flat - a_start + 0x100000
.set a_tick_at, a_tick - a_start + 0x100000
.set a_gdt_at, a_gdt - a_start + 0x100000
.set a_idtr_at, a_idtr - a_start + 0x100000
.set a_sync_at, a_sync - a_start + 0x100000
.set a_info_at, a_info - a_start + 0x100000
.set a_status_at, a_status - a_start + 0x100000
.set a_exec_at, a_exec - a_start + 0x100000
.set a_id_at, a_id - a_start + 0x100000
.set a_hostname_at, a_hostname - a_start + 0x100000
.set a_arguments_at, a_arguments - a_start + 0x100000
.set a_there_at, a_there - a_start + 0x100000
.set a_later_at, a_later - a_start + 0x100000
.set a_return_at, a_return - a_start + 0x100000
.set a_close_at, a_close - a_start + 0x100000
.set a_close2_at, a_close2 - a_start + 0x100000
.set a_empty_at, a_empty - a_start + 0x100000
.set a_version_at, a_version - a_start + 0x100000
.set a_commands_at, a_commands - a_start + 0x100000
.set a_pid_at, a_pid - a_start + 0x100000
.set a_runs_at, a_runs - a_start + 0x100000
.set a_exited_at, a_exited - a_start + 0x100000

.section .note.GNU-stack,"",@progbits
