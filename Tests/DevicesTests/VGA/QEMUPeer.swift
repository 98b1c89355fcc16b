import LinuxSystem
import TestSupport

/// A QEMU whose processor does not run: a test does the processor's work through
/// the qtest protocol, and takes pictures through QMP.
final class QEMUPeer {
  private static let videoMemoryBase: UInt64 = 0xE000_0000
  private static let registerBase: UInt64 = 0xFEBF_0000

  private let qemu: QEMU
  private let qtest: LineSocket

  /// Debian's QEMU has no qtest accelerator, but serves the protocol; a processor
  /// that is stopped from the start does as well. Its clock stands still too.
  init() throws {
    let (ours, theirs) = try UnixSocket.pair(kind: .stream)
    qtest = LineSocket(ours)
    qemu = try QEMU(
      [
        "-machine", "pc", "-accel", "tcg", "-S", "-m", "16", "-vga", "std",
        "-chardev", "socket,id=qtest,fd=4", "-qtest", "chardev:qtest", "-qtest-log", "none",
      ], descriptors: [4: theirs.descriptor])
    try mapBars()
  }

  /// The VGA is device 2 of bus 0.
  private func mapBars() throws {
    let settings: [(UInt32, UInt64)] = [
      (0x10, Self.videoMemoryBase), (0x18, Self.registerBase), (0x04, 0x07),
    ]
    for (register, value) in settings {
      try ask("outl 0xcf8 0x\(String(0x8000_1000 | register, radix: 16))")
      try ask("outl 0xcfc 0x\(String(value, radix: 16))")
    }
  }

  /// Runs the script and returns what its reads gave.
  func run(_ script: RegisterScript) throws -> [UInt64] {
    var values: [UInt64] = []
    var batch: [String] = []
    func flush() throws {
      guard !batch.isEmpty else { return }
      try qtest.send(batch.joined())
      for _ in batch { _ = try reply() }
      batch = []
    }
    for step in script.steps {
      switch step {
      case .in8(let port): try flush(); values.append(try ask("inb \(hex(port))"))
      case .in16(let port): try flush(); values.append(try ask("inw \(hex(port))"))
      case .read(let address, let count):
        try flush()
        for index in 0..<UInt32(count) { values.append(try ask("readb \(hex(address + index))")) }
      case .mmioRead(let offset, let width):
        try flush()
        values.append(
          try ask("read\(suffix(width)) \(hex(Self.registerBase + UInt64(offset)))"))
      case .refresh:
        try flush()
        _ = try picture()
      default:
        // Few enough that the answers never fill the socket while we still write.
        for line in lines(for: step) {
          batch.append(line)
          if batch.count == 64 { try flush() }
        }
      }
    }
    try flush()
    return values
  }

  private func lines(for step: RegisterScript.Step) -> [String] {
    switch step {
    case .out8(let port, let value): ["outb \(hex(port)) \(hex(value))\n"]
    case .out16(let port, let value): ["outw \(hex(port)) \(hex(value))\n"]
    case .touch(let port): ["inb \(hex(port))\n"]
    case .write(let address, let bytes): blocks(UInt64(address), bytes)
    case .videoMemory(let offset, let bytes):
      blocks(Self.videoMemoryBase + UInt64(offset), bytes)
    case .mmioWrite(let offset, let width, let value):
      ["write\(suffix(width)) \(hex(Self.registerBase + UInt64(offset))) \(hex(value))\n"]
    default: []
    }
  }

  private func blocks(_ address: UInt64, _ bytes: [UInt8]) -> [String] {
    stride(from: 0, to: bytes.count, by: 4096).map { start in
      let block = bytes[start..<min(start + 4096, bytes.count)]
      let digits = String(decoding: Self.hexDigits(block), as: UTF8.self)
      return "write \(hex(address + UInt64(start))) \(hex(block.count)) 0x\(digits)\n"
    }
  }

  private static func hexDigits(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
    let digit = Array("0123456789abcdef".utf8)
    var text = [UInt8](repeating: 0, count: bytes.count * 2)
    var at = 0
    for byte in bytes {
      text[at] = digit[Int(byte >> 4)]
      text[at + 1] = digit[Int(byte & 15)]
      at += 2
    }
    return text
  }

  private func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }

  private func suffix(_ width: Int) -> String { width == 1 ? "b" : width == 2 ? "w" : "l" }

  @discardableResult
  private func ask(_ line: String) throws -> UInt64 {
    try qtest.send(line + "\n")
    return try reply()
  }

  private func reply() throws -> UInt64 {
    let line = try qtest.readLine()
    guard line.hasPrefix("OK") else { throw QEMU.Failure(description: "qtest: \(line)") }
    let digits = line.dropFirst(2).drop { $0 == " " }
    return UInt64(digits.hasPrefix("0x") ? digits.dropFirst(2) : digits, radix: 16) ?? 0
  }

  func picture() throws -> Picture {
    guard let picture = Picture(ppm: try qemu.screendump()) else {
      throw QEMU.Failure(description: "screendump is no PPM")
    }
    return picture
  }
}
