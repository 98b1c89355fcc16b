/// A ROM for SeaBIOS to boot, which loads a kernel from the firmware configuration device
/// and enters it in real mode.
///
/// It takes address, size and contents of each part from the items that QEMU's own such
/// ROMs take them from, and has the device copy the part (docs/specs/fw_cfg, "Guest-side
/// DMA interface"): its addresses are physical, so that there is no need to leave real
/// mode. Stack and descriptor lie where boot sectors do, which nothing else uses then.
enum KernelROM {
  /// Where SeaBIOS looks for ROMs that belong to no device.
  static let file = "genroms/carrel-kernel.bin"
  /// What it is called among the devices to boot from.
  static let bootPath = "/rom@\(file)"

  private static let size = 512
  private static let expansionHeader = 0x20
  private static let manufacturer = Array("Carrel\0".utf8)
  private static let product = Array("the kernel given to this machine\0".utf8)

  static let bytes: [UInt8] = {
    var rom = header + program + manufacturer + product
    rom += [UInt8](repeating: 0, count: size - rom.count)
    rom[expansionHeader + 9] = checksum(rom[expansionHeader..<expansionHeader + 32])
    rom[7] = checksum(rom[...])
    return rom
  }()

  /// What makes the sum 0.
  private static func checksum(_ bytes: ArraySlice<UInt8>) -> UInt8 {
    0 &- bytes.reduce(0, &+)
  }

  /// Of an option ROM, and the Plug and Play expansion header (Plug and Play BIOS
  /// Specification 1.0A, section 3), which says what to call to boot.
  private static var header: [UInt8] {
    let names = UInt16(0x40 + program.count)
    let productName = names + UInt16(manufacturer.count)
    func word(_ value: UInt16) -> [UInt8] {
      [UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8)]
    }
    return [
      [0x55, 0xAA, UInt8(size / 512)],
      [0xB8, 0x20, 0x00],  // mov ax, 20h: there is something to boot from
      [0xCB, 0],  // retf, and the sum
      [UInt8](repeating: 0, count: 16), word(0), word(UInt16(expansionHeader)),
      [0, 0, 0, 0],
      Array("$PnP".utf8), [1, 2], word(0), [0, 0],  // revision, length, no other, the sum
      [0, 0, 0, 0], word(names), word(productName),
      [0x00, 0x80, 0x00, 0x14],  // a device of no class; shared ROM, to boot from
      word(0), word(0), word(0x40), word(0), word(0),  // only the entry that boots
    ].flatMap { $0 }
  }

  /// From 40h on. Descriptor at 7C00h, numbers at 7C10h, stack below.
  private static let program: [UInt8] = [
    [0xFA],  // 40: cli
    [0xFC],  // 41: cld
    [0x31, 0xC0],  // 42: xor ax, ax
    [0x8E, 0xD0],  // 44: mov ss, ax
    [0xBC, 0x00, 0x7C],  // 46: mov sp, 7C00h
    [0x8E, 0xD8],  // 49: mov ds, ax
    [0xBE, 0xF2, 0x00],  // 4B: mov si, F2h: the parts

    // Each part: its address, its size, its contents.
    [0x2E, 0xAC],  // 4E: cs lodsb
    [0x84, 0xC0],  // 50: test al, al
    [0x74, 0x15],  // 52: jz 69
    [0xE8, 0x3B, 0x00],  // 54: call 92
    [0x66, 0x50],  // 57: push eax
    [0x2E, 0xAC],  // 59: cs lodsb
    [0xE8, 0x34, 0x00],  // 5B: call 92
    [0x66, 0x91],  // 5E: xchg ecx, eax
    [0x66, 0x5F],  // 60: pop edi
    [0x2E, 0xAC],  // 62: cs lodsb
    [0xE8, 0x3F, 0x00],  // 64: call A6
    [0xEB, 0xE5],  // 67: jmp 4E

    // The stack ends 16 bytes below the command line; everything else is at the setup.
    [0xB0, 0x16],  // 69: mov al, 16h: the setup's address
    [0xE8, 0x24, 0x00],  // 6B: call 92
    [0x66, 0x93],  // 6E: xchg ebx, eax
    [0xB0, 0x13],  // 70: mov al, 13h: the command line's
    [0xE8, 0x1D, 0x00],  // 72: call 92
    [0x66, 0x29, 0xD8],  // 75: sub eax, ebx
    [0x83, 0xE8, 0x10],  // 78: sub ax, 16
    [0x66, 0xC1, 0xEB, 0x04],  // 7B: shr ebx, 4
    [0x8E, 0xD3],  // 7F: mov ss, bx
    [0x89, 0xC4],  // 81: mov sp, ax
    [0x8E, 0xDB],  // 83: mov ds, bx
    [0x8E, 0xC3],  // 85: mov es, bx
    [0x8E, 0xE3],  // 87: mov fs, bx
    [0x8E, 0xEB],  // 89: mov gs, bx
    [0x83, 0xC3, 0x20],  // 8B: add bx, 20h
    [0x53],  // 8E: push bx
    [0x6A, 0x00],  // 8F: push 0
    [0xCB],  // 91: retf

    // EAX = the number in item AL.
    [0x66, 0xBF, 0x10, 0x7C, 0x00, 0x00],  // 92: mov edi, 7C10h
    [0x66, 0xB9, 0x04, 0x00, 0x00, 0x00],  // 98: mov ecx, 4
    [0xE8, 0x05, 0x00],  // 9E: call A6
    [0x66, 0xA1, 0x10, 0x7C],  // A1: mov eax, [7C10h]
    [0xC3],  // A5: ret

    // ECX bytes of item AL to the address EDI, by "select" and "read".
    [0xC6, 0x06, 0x00, 0x7C, 0x00],  // A6: mov byte [7C00h], 0
    [0xA2, 0x01, 0x7C],  // AB: mov [7C01h], al
    [0xC7, 0x06, 0x02, 0x7C, 0x00, 0x0A],  // AE: mov word [7C02h], 0A00h
    [0x66, 0x0F, 0xC9],  // B4: bswap ecx
    [0x66, 0x89, 0x0E, 0x04, 0x7C],  // B7: mov [7C04h], ecx
    [0x66, 0x31, 0xC0],  // BC: xor eax, eax
    [0x66, 0xA3, 0x08, 0x7C],  // BF: mov [7C08h], eax
    [0x66, 0x0F, 0xCF],  // C3: bswap edi
    [0x66, 0x89, 0x3E, 0x0C, 0x7C],  // C6: mov [7C0Ch], edi
    [0xBA, 0x14, 0x05],  // CB: mov dx, 514h
    [0x66, 0xEF],  // CE: out dx, eax
    [0x66, 0xB8, 0x00, 0x00, 0x7C, 0x00],  // D0: mov eax, 007C0000h
    [0xB2, 0x18],  // D6: mov dl, 18h
    [0x66, 0xEF],  // D8: out dx, eax
    [0x66, 0xA1, 0x00, 0x7C],  // DA: mov eax, [7C00h]
    [0x66, 0xA9, 0xFF, 0xFF, 0xFF, 0xFE],  // DE: test eax, FEFFFFFFh: all but "error"
    [0x75, 0xF4],  // E4: jnz DA
    [0x66, 0x85, 0xC0],  // E6: test eax, eax
    [0x75, 0x01],  // E9: jnz EC
    [0xC3],  // EB: ret

    // Firmware is to boot something else.
    [0xFB],  // EC: sti
    [0xCD, 0x18],  // ED: int 18h
    [0xF4],  // EF: hlt
    [0xEB, 0xFD],  // F0: jmp EF

    // F2: kernel, RAM disk, command line, setup.
    [0x07, 0x08, 0x11], [0x0A, 0x0B, 0x12], [0x13, 0x14, 0x15], [0x16, 0x17, 0x18], [0],
  ].flatMap { $0 }
}
