/// A guest of a few bytes: an ELF with a PVH entry (Xen's public ABI, note type 18)
/// whose 32-bit code is given.
public enum SmallGuest {
  /// Sleeps with interrupts off until the plug is pulled.
  public static let sleeping = elf(code: [0xFA, 0xF4, 0xEB, 0xFD])
  /// Jumps to where there is no memory, which KVM cannot carry out.
  public static let crashing = elf(code: [0xB8, 0, 0, 0, 0xD0, 0xFF, 0xE0])

  /// Sleeps with that much in memory.
  public static func sleeping(with bytes: [UInt8]) -> [UInt8] {
    elf(code: [0xFA, 0xF4, 0xEB, 0xFD] + bytes)
  }

  /// Writes to every page from 2 MiB to the end of its memory, then sleeps.
  public static func dirtying(memoryMiB: Int) -> [UInt8] {
    let end = UInt32(clamping: memoryMiB << 20)
    // mov edi, start; 1: mov [edi], edi; add edi, 4096; cmp edi, end; jb 1b
    let loop: [UInt8] =
      [0xBF] + little(UInt32(2 << 20)) + [0x89, 0x3F, 0x81, 0xC7] + little(UInt32(4096))
      + [0x81, 0xFF] + little(end) + [0x72, 0xF0]
    return elf(code: loop + [0xFA, 0xF4, 0xEB, 0xFD])
  }

  /// Writes to every page from 2 MiB to the end of its memory, over and over.
  public static func rewriting(memoryMiB: Int) -> [UInt8] {
    // 1: mov edi, start; 2: inc dword [edi]; add edi, 4096; cmp edi, end; jb 2b; jmp 1b
    let loop: [UInt8] =
      [0xBF] + little(UInt32(2 << 20)) + [0xFF, 0x07, 0x81, 0xC7] + little(UInt32(4096))
      + [0x81, 0xFF] + little(UInt32(clamping: memoryMiB << 20)) + [0x72, 0xF0, 0xEB, 0xE9]
    return elf(code: [0xFA] + loop)
  }

  private static let address: UInt32 = 0x10_0000

  public static func elf(code: [UInt8]) -> [UInt8] {
    let noteOffset: UInt64 = 64 + 2 * 56
    let note =
      little(UInt32(4)) + little(UInt32(4)) + little(UInt32(18)) + Array("Xen\0".utf8)
      + little(address)
    let codeOffset = noteOffset + UInt64(note.count)
    var bytes: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1, 0] + [UInt8](repeating: 0, count: 8)
    bytes += little(UInt16(2)) + little(UInt16(62)) + little(UInt32(1))
    bytes += little(UInt64(address)) + little(UInt64(64)) + little(UInt64(0)) + little(UInt32(0))
    bytes += little(UInt16(64)) + little(UInt16(56)) + little(UInt16(2))
    bytes += little(UInt16(64)) + little(UInt16(0)) + little(UInt16(0))
    bytes += header(type: 1, offset: codeOffset, count: code.count)
    bytes += header(type: 4, offset: noteOffset, count: note.count)
    return bytes + note + code
  }

  private static func header(type: UInt32, offset: UInt64, count: Int) -> [UInt8] {
    little(type) + little(UInt32(7)) + little(offset) + little(UInt64(address))
      + little(UInt64(address)) + little(UInt64(count)) + little(UInt64(count))
      + little(UInt64(1))
  }

  private static func little<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
    (0..<Number.bitWidth / 8).map { UInt8(truncatingIfNeeded: number >> Number($0 * 8)) }
  }
}
