/// COM1, a 16550A: commands in, one machine-readable line per event out.
final class SerialPort {
  private static let base: UInt16 = 0x3F8
  private var isPresent = false
  private var line: [UInt8] = []
  private var output: [UInt8] = []

  init() {
    Port(Self.base + 7).byte = 0x5A
    guard Port(Self.base + 7).byte == 0x5A else { return }
    isPresent = true
    Port(Self.base + 1).byte = 0
    Port(Self.base + 3).byte = 0x80
    Port(Self.base).byte = 1  // 115200 baud
    Port(Self.base + 1).byte = 0
    Port(Self.base + 3).byte = 0x03
    Port(Self.base + 2).byte = 0x07
    Port(Self.base + 4).byte = 0x0B
    Port(Self.base + 1).byte = 0x01
    Interrupts.serial.unmask()
  }

  /// Queues `carrel: ` and a line: port writes are slow, and the screen comes first.
  func report(_ text: [UInt8]) {
    guard isPresent else { return }
    output += Array("carrel: ".utf8) + text + [13, 10]
  }

  func report(_ text: String) { report(Array(text.utf8)) }

  /// Writes what was queued.
  func flush() {
    guard !output.isEmpty else { return }
    for (index, byte) in output.enumerated() {
      // The FIFO takes 16 bytes when it is empty.
      if index % 16 == 0 {
        var patience = 10_000
        while Port(Self.base + 5).byte & 0x20 == 0, patience > 0 { patience -= 1 }
      }
      Port(Self.base).byte = byte
    }
    output.removeAll(keepingCapacity: true)
  }

  /// Takes received bytes; the lines they complete are returned.
  func receive() -> [[UInt8]] {
    guard isPresent else { return [] }
    var lines: [[UInt8]] = []
    while Port(Self.base + 5).byte & 0x01 != 0 {
      let byte = Port(Self.base).byte
      if byte == 10 || byte == 13 {
        if !line.isEmpty { lines.append(line) }
        line = []
      } else if line.count < 256 {
        line.append(byte)
      }
    }
    return lines
  }
}
