import CMachine

/// What the loader says through the PVH start info (Xen public headers,
/// arch-x86/hvm/start_info.h).
struct BootInformation {
  /// Where the ACPI root pointer is, 0 if the loader does not say.
  let rootPointer: UInt64
  /// The end of the RAM range that holds the image.
  let memoryEnd: UInt64
  /// Where the kernel's command line is; there is no heap to keep it in yet.
  private let commandLine: UInt64

  private static let magic: UInt32 = 0x336E_C578

  init() {
    let info = start_info_address()
    let imageEnd = image_end_address()
    var end = imageEnd + (48 << 20)
    guard PhysicalMemory.read(info, as: UInt32.self) == Self.magic else {
      rootPointer = 0
      memoryEnd = end
      commandLine = 0
      return
    }
    rootPointer = PhysicalMemory.read(info + 32, as: UInt64.self)
    commandLine = PhysicalMemory.read(info + 24, as: UInt64.self)
    if PhysicalMemory.read(info + 4, as: UInt32.self) >= 1 {
      let map = PhysicalMemory.read(info + 40, as: UInt64.self)
      let entries = min(PhysicalMemory.read(info + 48, as: UInt32.self), 64)
      for index in 0..<UInt64(entries) {
        let start = PhysicalMemory.read(map + index * 24, as: UInt64.self)
        let size = PhysicalMemory.read(map + index * 24 + 8, as: UInt64.self)
        let type = PhysicalMemory.read(map + index * 24 + 16, as: UInt32.self)
        let last = min(start &+ size, 1 << 32)
        if type == 1, start <= 0x20_0000, last > imageEnd { end = last }
      }
    }
    memoryEnd = end
  }

  /// What follows `name=` in a word of the kernel's command line.
  func value(of name: StaticString) -> [UInt8]? {
    let prefix = name.withUTF8Buffer { Array($0) } + [UInt8(ascii: "=")]
    for word in Self.string(at: commandLine).split(separator: UInt8(ascii: " "))
    where word.starts(with: prefix) {
      return Array(word.dropFirst(prefix.count))
    }
    return nil
  }

  private static func string(at address: UInt64) -> [UInt8] {
    var bytes: [UInt8] = []
    guard address != 0 else { return bytes }
    while bytes.count < 4096 {
      let byte = PhysicalMemory.read(address + UInt64(bytes.count), as: UInt8.self)
      guard byte != 0 else { break }
      bytes.append(byte)
    }
    return bytes
  }
}
