import Machine

/// A guest that writes rising numbers to its disk, one sector after the other around 64 of
/// them, and looks before each whether the sector has the number that its memory knows of.
enum CountingGuest {
  static let sectors = 64

  private enum Place {
    /// The last number whose write was completed.
    static let number: UInt32 = 0x20_0000
    static let next: UInt32 = 0x20_0004
    static let sector: UInt32 = 0x20_0008
    static let data: UInt32 = 0x30_4000
    static let rings: UInt32 = 0x30_0000
    static let available = rings + 0x1000
    static let used = rings + 0x2000
    static let header: UInt32 = 0x30_3000
    static let status: UInt32 = 0x30_3100
  }

  /// Sends "." for every 64 numbers, "!" when a sector had another number, and "?" when the
  /// disk refused; either of these is the end.
  static func program(_ bus: MachineConfiguration.Disk.Bus) -> GuestProgram {
    var program = GuestProgram()
    if bus == .virtio {
      program.findVirtio(slot: 16 << 3)
      program.startVirtio(rings: Place.rings)
    }
    let loop = program.bytes.count
    program.loadEAX(from: Place.number)
    program.emit(0x40)  // inc eax
    program.storeEAX(at: Place.next)
    program.storeEAX(at: Place.data)
    transfer(&program, bus, isWrite: true)
    program.loadEAX(from: Place.next)
    program.storeEAX(at: Place.number)
    program.emit(0x40)  // inc eax
    transfer(&program, bus, isWrite: false)
    program.loadEAX(from: Place.number)
    // sub eax, 63; jns over; xor eax, eax; cmp eax, [data]
    program.emit(0x83, 0xE8, 0x3F, 0x79, 0x02, 0x31, 0xC0, 0x3B, 0x05)
    program.emit(word: Place.data)
    program.endUnlessEqual("!")
    program.emit(0xF6, 0x05)  // test byte [number], 63
    program.emit(word: Place.number)
    program.emit(0x3F, 0x75, 0x08)  // jnz over
    program.outByte(0x3F8, UInt8(ascii: "."))
    program.emit(0xE9)  // jmp loop
    program.emit(word: UInt32(bitPattern: Int32(loop - program.bytes.count - 4)))
    return program
  }

  /// Of the sector whose number is in EAX, modulo 64.
  private static func transfer(
    _ program: inout GuestProgram, _ bus: MachineConfiguration.Disk.Bus, isWrite: Bool
  ) {
    program.emit(0x83, 0xE0, 0x3F)  // and eax, 63
    program.storeEAX(at: Place.sector)
    switch bus {
    case .ide: transferByIDE(&program, isWrite)
    case .virtio: transferByVirtio(&program, isWrite)
    }
  }

  private static func transferByIDE(_ program: inout GuestProgram, _ isWrite: Bool) {
    program.outByte(0x1F6, 0xE0)
    program.outByte(0x1F2, 1)
    program.loadEAX(from: Place.sector)
    program.port(0x1F3)
    program.emit(0xEE)  // out dx, al
    program.outByte(0x1F4, 0)
    program.outByte(0x1F5, 0)
    program.outByte(0x1F7, isWrite ? 0x30 : 0x20)
    program.waitForData(0x1F0)
    program.emit(0xBE)  // mov esi, data
    program.emit(word: Place.data)
    program.emit(0xBF)  // mov edi, data
    program.emit(word: Place.data)
    program.emit(0xB9)  // mov ecx, 256
    program.emit(word: 256)
    program.port(0x1F0)
    program.emit(0xFC, 0xF3, 0x66, isWrite ? 0x6F : 0x6D)  // cld; rep outsw, or insw
    program.port(0x1F7)
    let wait = program.bytes.count
    program.emit(0xEC, 0xA8, 0x80)  // in al, dx; test al, BSY
    program.jump(0x75, to: wait)
    program.emit(0xA8, 0x01)  // test al, ERR
    program.endUnlessEqual("?")
  }

  private static func transferByVirtio(_ program: inout GuestProgram, _ isWrite: Bool) {
    for (index, value) in [isWrite ? 1 : 0, 0, 0, 0].enumerated() {
      program.store(UInt32(value), at: Place.header + UInt32(index) * 4)
    }
    program.loadEAX(from: Place.sector)
    program.storeEAX(at: Place.header + 8)
    program.describe(
      [(Place.header, 16, false), (Place.data, 512, !isWrite), (Place.status, 1, true)],
      rings: Place.rings)
    program.emit(0x66, 0xFF, 0x05)  // inc word [available + 2]
    program.emit(word: Place.available + 2)
    program.setWord(0x3000, 0)
    let wait = program.bytes.count
    program.emit(0x66, 0xA1)  // mov ax, [used + 2]
    program.emit(word: Place.used + 2)
    program.emit(0x66, 0x3B, 0x05)  // cmp ax, [available + 2]
    program.emit(word: Place.available + 2)
    program.jump(0x75, to: wait)
    program.emit(0x80, 0x3D)  // cmp byte [status], 0
    program.emit(word: Place.status)
    program.emit(0)
    program.endUnlessEqual("?")
  }

  /// The greatest number that is on a disk.
  ///
  /// - Returns: `nil` when its sectors are not the last ones that the guest wrote.
  static func lastNumber(on disk: [UInt8]) -> Int? {
    let numbers = (0..<sectors).map { sector in
      (0..<4).reduce(0) { $0 | Int(disk[sector * 512 + $1]) << ($1 * 8) }
    }
    guard let last = numbers.max() else { return nil }
    let expected = (0..<sectors).map { sector in
      let number = last - (last - sector + sectors) % sectors
      return max(number, 0)
    }
    return numbers == expected ? last : nil
  }
}

extension GuestProgram {
  /// mov [address], eax
  mutating func storeEAX(at address: UInt32) {
    emit(0xA3)
    emit(word: address)
  }

  /// Unless the zero flag is set, sends a character and switches off.
  mutating func endUnlessEqual(_ character: Character) {
    var end = GuestProgram()
    end.send("\(character)")
    end.powerOff()
    emit(0x74, UInt8(end.bytes.count))  // je over
    self = end.following(self)
  }
}
