import DeviceModel

/// Drives the firmware configuration device with an arbitrary byte string, as a guest
/// with bad intentions would. Shared by the fuzz target and the tests.
package enum FirmwareFuzzing {
  /// Interprets `program` as port accesses and DMA descriptors, and saves and restores
  /// the device on the way. Returns how often a writable file was written.
  @discardableResult
  package static func run(_ program: [UInt8]) -> Int {
    var contents = FirmwareContents()
    contents.describeProcessors(count: 1, maximum: 1)
    contents.addFile("opt/user", Array("ada".utf8))
    contents.addFile("etc/writable", Array(repeating: 7, count: 64), isWritable: true)
    contents.addFile("opt/changing", [], isReread: true)
    let memory = Memory()
    let source = Source()
    var writes = 0
    var device = FirmwareConfiguration(
      contents: contents, memory: memory, source: source, state: nil)
    device.onWrite = { _ in writes += 1 }
    var rest = program[...]
    func next() -> UInt64 { UInt64(rest.popFirst() ?? 0) }
    while let operation = rest.popFirst() {
      switch operation & 7 {
      case 0: device.write(offset: 0, width: 2, value: next() | UInt64(operation & 0xC0) << 8)
      case 1: _ = device.read(offset: next() % 12, width: 1 << Int(next() % 3))
      case 2:
        let value = (0..<4).reduce(UInt64(0)) { value, _ in value << 8 | next() }
        device.write(offset: next() % 12, width: 1 << Int(next() % 3), value: value)
      case 3:
        let state = device.saveState()
        device = FirmwareConfiguration(
          contents: contents, memory: memory, source: source, state: state)
        device.onWrite = { _ in writes += 1 }
      default:
        // A descriptor at 0x100: mostly small numbers, sometimes enormous ones.
        let high: UInt8 = operation & 0x10 == 0 ? 0 : 0xFF
        let far: UInt8 = operation & 0x20 == 0 ? 0 : 0xFF
        memory.bytes.replaceSubrange(
          0x100..<0x110,
          with: [0, UInt8(next()), 0, UInt8(next()), high, 0, UInt8(next()), UInt8(next())]
            + [far, far, 0, 0, 0, 0, UInt8(next()), UInt8(next())])
        device.write(offset: 8, width: 4, value: UInt64(UInt32(0x100).byteSwapped))
      }
    }
    return writes
  }

  /// A file that grows each time, until it is too large, and then vanishes.
  private final class Source: FirmwareFileSource {
    private var count = 0

    func contents(ofFirmwareFile name: String) -> [UInt8]? {
      count = (count * 2 + 1) & 0x3_FFFF
      return count & 0x2_0000 == 0 ? [UInt8](repeating: 9, count: count) : nil
    }
  }

  /// 64 KiB of RAM from address 0.
  private final class Memory: GuestMemory {
    var bytes = [UInt8](repeating: 0, count: 1 << 16)

    func read(at address: UInt64, into buffer: UnsafeMutableRawBufferPointer)
      throws(GuestMemoryError)
    {
      buffer.copyBytes(from: bytes[try range(address, buffer.count)])
    }

    func write(at address: UInt64, from buffer: UnsafeRawBufferPointer)
      throws(GuestMemoryError)
    {
      bytes.replaceSubrange(try range(address, buffer.count), with: buffer)
    }

    private func range(_ address: UInt64, _ count: Int) throws(GuestMemoryError) -> Range<Int> {
      guard address <= UInt64(bytes.count), count <= bytes.count - Int(address) else {
        throw GuestMemoryError(address: address, count: count)
      }
      return Int(address)..<Int(address) + count
    }
  }
}
