/// CMOS RAM bytes that PC firmware reads to learn about the machine.
package enum CMOSContents {
  /// What firmware may boot from, by the nibble that CMOS bytes 0x3D and 0x38 use.
  package enum BootDevice: UInt8, Sendable {
    case none = 0
    case floppy = 1
    case disk = 2
    case cdrom = 3
    case network = 4
  }

  /// - Parameters:
  ///   - low: RAM below 4 GiB, in bytes, from address 0.
  ///   - high: RAM from 4 GiB up, in bytes.
  ///   - boot: at most three devices, first choice first.
  package static func describe(
    low: UInt64, high: UInt64, processors: Int, boot: [BootDevice]
  ) -> [Int: UInt8] {
    var bytes: [Int: UInt8] = [:]
    func store(_ value: UInt64, at index: Int, count: Int) {
      let limited = min(value, (1 << UInt64(count * 8)) - 1)
      for part in 0..<count {
        bytes[index + part] = UInt8(truncatingIfNeeded: limited >> UInt64(part * 8))
      }
    }
    let mebibyte: UInt64 = 1 << 20
    store(640, at: 0x15, count: 2)
    let extended = low > mebibyte ? (low - mebibyte) >> 10 : 0
    store(extended, at: 0x17, count: 2)
    store(extended, at: 0x30, count: 2)
    store(low > 16 * mebibyte ? (low - 16 * mebibyte) >> 16 : 0, at: 0x34, count: 2)
    store(high >> 16, at: 0x5B, count: 3)
    store(UInt64(max(processors, 1) - 1), at: 0x5F, count: 1)
    // Equipment: a coprocessor and a pointing device.
    bytes[0x14] = 0x06
    let order = boot.map(\.rawValue) + [0, 0, 0]
    bytes[0x3D] = order[0] | order[1] << 4
    bytes[0x38] = order[2] << 4
    return bytes
  }
}
