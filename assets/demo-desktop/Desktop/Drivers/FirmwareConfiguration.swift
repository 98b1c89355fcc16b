/// The fw_cfg device (QEMU docs/specs/fw_cfg.rst): named files from the host.
struct FirmwareConfiguration {
  private struct File {
    let selector: UInt16
    let name: [UInt8]
  }

  private var files: [File] = []
  private static let hasDMABit: UInt8 = 2
  private var hasDMA = false

  init() {
    guard item(0, count: 4) == Array("QEMU".utf8) else { return }
    hasDMA = (item(1, count: 4).first ?? 0) & Self.hasDMABit != 0
    let count = min(Self.bigEndian(item(0x19, count: 4)[...]), 128)
    let directory = item(0x19, count: 4 + count * 64)
    for index in 0..<count {
      let entry = directory[(4 + index * 64)..<(68 + index * 64)]
      let start = entry.startIndex
      let name = entry[(start + 8)...].prefix { $0 != 0 }
      files.append(
        File(
          selector: UInt16(Self.bigEndian(entry[(start + 4)..<(start + 6)])), name: Array(name)))
    }
  }

  private static let longest = 256

  /// The text of a file as it is now, without white space at its end, or nil if it is
  /// not there. The directory's size may be out of date; past a file's end are zeros.
  func text(_ name: StaticString) -> [UInt8]? {
    let wanted = name.withUTF8Buffer { Array($0) }
    guard let file = files.first(where: { $0.name == wanted }) else { return nil }
    var bytes = Array(item(file.selector, count: Self.longest).prefix { $0 != 0 })
    while let last = bytes.last, last <= 0x20 { bytes.removeLast() }
    return bytes
  }

  /// The user's name as it is now: a desktop may run before it is anybody's.
  var user: Text {
    guard let bytes = text("opt/carrel/user"), !bytes.isEmpty else { return "guest".text }
    return Decoding.text(bytes)
  }

  /// The desktop's name as it is now: one that was cloned from another has its own.
  var desktop: Text {
    guard let bytes = text("opt/carrel/desktop"), !bytes.isEmpty else { return "demo".text }
    return Decoding.text(bytes)
  }

  /// What its user's keyboard says, as it is now.
  var layout: Keymap.Layout {
    .named(Decoding.text(text("opt/carrel/keyboard") ?? []))
  }

  private func item(_ selector: UInt16, count: Int) -> [UInt8] {
    if hasDMA { return transfer(selector, count: count) }
    Port(0x510).word = selector
    return (0..<count).map { _ in Port(0x511).byte }
  }

  /// One DMA operation instead of a port read for each byte. Addresses are
  /// physical, and equal to the desktop's own.
  private func transfer(_ selector: UInt16, count: Int) -> [UInt8] {
    // SAFETY: the array is sized for the transfer, which is complete when the
    // control word clears, before the closure returns.
    [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      let target = UInt64(UInt(bitPattern: buffer.baseAddress))
      let command: [UInt32] = [
        (UInt32(selector) << 16 | 0x0A).bigEndian, UInt32(count).bigEndian,
        UInt32(target >> 32).bigEndian, UInt32(truncatingIfNeeded: target).bigEndian,
      ]
      // SAFETY: the device reads the command while the closure runs.
      command.withUnsafeBytes { bytes in
        let address = UInt64(UInt(bitPattern: bytes.baseAddress))
        Port(0x514).long = UInt32(address >> 32).bigEndian
        Port(0x518).long = UInt32(truncatingIfNeeded: address).bigEndian
        while PhysicalMemory.read(address, as: UInt32.self).bigEndian & ~1 != 0 {}
      }
      filled = count
    }
  }

  private static func bigEndian(_ bytes: ArraySlice<UInt8>) -> Int {
    bytes.reduce(0) { $0 << 8 | Int($1) }
  }
}
