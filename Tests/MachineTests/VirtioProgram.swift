/// What guests do to a virtio card: its registers lie at the address in EBX.
extension GuestProgram {
  /// Enables the function that starts at `slot` (device times 8, and function) of bus 0,
  /// leaves the base of its registers in EBX, and agrees upon VERSION_1 alone.
  mutating func findVirtio(slot: UInt32) {
    outLong(0xCF8, 0x8000_0020 | slot << 8)
    port(0xCFC)
    emit(0xED, 0x24, 0xF0, 0x89, 0xC3)  // in eax, dx; and al, 0f0h; mov ebx, eax
    outLong(0xCF8, 0x8000_0004 | slot << 8)
    outWord(0xCFC, 0x0006)
    setByte(0x14, 0x03)
    setLong(0x08, 1)
    setLong(0x0C, 1)
    setByte(0x14, 0x0B)
  }

  /// Gives queue 0 its rings, each in a page from `rings` on, and starts the device.
  mutating func startVirtio(rings: UInt32) {
    setUpVirtio(queue: 0, rings: rings)
    setByte(0x14, 0x0F)
  }

  /// Gives a queue its rings, each in a page from `rings` on.
  mutating func setUpVirtio(queue: UInt16, rings: UInt32) {
    setWord(0x16, queue)
    setWord(0x18, 8)
    for (index, register) in [UInt32(0x20), 0x28, 0x30].enumerated() {
      setLong(register, rings + UInt32(index) << 12)
      setLong(register + 4, 0)
    }
    setWord(0x1C, 1)
  }

  /// mov byte [ebx + register], value
  mutating func setByte(_ register: UInt32, _ value: UInt8) {
    emit(0xC6, 0x83)
    emit(word: register)
    emit(value)
  }

  /// mov word [ebx + register], value
  mutating func setWord(_ register: UInt32, _ value: UInt16) {
    emit(0x66, 0xC7, 0x83)
    emit(word: register)
    emit(UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8))
  }

  /// mov dword [ebx + register], value
  mutating func setLong(_ register: UInt32, _ value: UInt32) {
    emit(0xC7, 0x83)
    emit(word: register)
    emit(word: value)
  }

  /// Describes a chain from descriptor 0 on: address, length, whether the device writes it.
  mutating func describe(_ pieces: [(UInt32, UInt32, Bool)], rings: UInt32) {
    for (index, (place, count, isWritable)) in pieces.enumerated() {
      let hasNext = index + 1 < pieces.count
      let flags: UInt32 = (isWritable ? 2 : 0) | (hasNext ? 1 : 0)
      let link = hasNext ? UInt32(index + 1) << 16 : 0
      for (word, value) in [place, 0, count, flags | link].enumerated() {
        store(value, at: rings + UInt32(index * 16 + word * 4))
      }
    }
  }

  /// Makes the chain at descriptor 0 available, as the `number`th, and tells the queue.
  mutating func notifyVirtio(number: UInt32, rings: UInt32, queue: UInt16 = 0) {
    store(number << 16, at: rings + 0x1000)
    setWord(0x3000 + UInt32(queue) * 4, queue)
  }

  /// Waits until the device gave back as many.
  mutating func awaitUsed(number: UInt32, rings: UInt32) {
    let start = bytes.count
    emit(0x66, 0xA1)  // mov ax, [used + 2]
    emit(word: rings + 0x2002)
    emit(0x3C, UInt8(truncatingIfNeeded: number))  // cmp al, number
    jump(0x75, to: start)
  }
}
