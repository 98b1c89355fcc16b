/// Offsets in a type 0 configuration header (PCI Local Bus 3.0, figure 6-1).
package enum PCIRegister {
  package static let vendorID = 0x00
  package static let deviceID = 0x02
  package static let command = 0x04
  package static let status = 0x06
  package static let revisionID = 0x08
  package static let classCode = 0x09
  package static let cacheLineSize = 0x0C
  package static let latencyTimer = 0x0D
  package static let headerType = 0x0E
  package static let baseAddress0 = 0x10
  package static let subsystemVendorID = 0x2C
  package static let subsystemID = 0x2E
  package static let expansionROM = 0x30
  package static let capabilityPointer = 0x34
  package static let interruptLine = 0x3C
  package static let interruptPin = 0x3D
}

/// The 256 bytes of a function's configuration space, with what each bit of it
/// does when written. Little-endian. Every access is safe for any offset.
package struct PCIConfigurationSpace {
  package private(set) var bytes: [UInt8]
  private var writable: [UInt8]
  private var writeOneToClear: [UInt8]

  package init() {
    bytes = Array(repeating: 0, count: 256)
    writable = bytes
    writeOneToClear = bytes
  }

  /// Reads `width` bytes; offsets wrap at 256.
  package func read(_ offset: Int, width: Int) -> UInt32 {
    var value: UInt32 = 0
    for index in 0..<min(width, 4) {
      value |= UInt32(bytes[(offset &+ index) & 0xFF]) << UInt32(index * 8)
    }
    return value
  }

  /// A write by the guest: only writable bits change, and bits that are cleared by
  /// writing one are.
  package mutating func write(_ offset: Int, width: Int, value: UInt32) {
    for index in 0..<min(width, 4) {
      let at = (offset &+ index) & 0xFF
      let byte = UInt8(truncatingIfNeeded: value >> UInt32(index * 8))
      bytes[at] = (bytes[at] & ~writable[at]) | (byte & writable[at])
      bytes[at] &= ~(byte & writeOneToClear[at])
    }
  }

  /// Sets bytes whatever the masks say: the device's own side.
  package mutating func set(_ offset: Int, width: Int, value: UInt32) {
    for index in 0..<min(width, 4) {
      bytes[(offset &+ index) & 0xFF] = UInt8(truncatingIfNeeded: value >> UInt32(index * 8))
    }
  }

  /// Lets the guest write the bits of `mask` at `offset`.
  package mutating func allowWrites(_ offset: Int, width: Int, mask: UInt32) {
    for index in 0..<min(width, 4) {
      writable[(offset &+ index) & 0xFF] |= UInt8(truncatingIfNeeded: mask >> UInt32(index * 8))
    }
  }

  /// Lets the guest clear the bits of `mask` at `offset` by writing ones.
  package mutating func allowClearing(_ offset: Int, width: Int, mask: UInt32) {
    for index in 0..<min(width, 4) {
      writeOneToClear[(offset &+ index) & 0xFF] |=
        UInt8(truncatingIfNeeded: mask >> UInt32(index * 8))
    }
  }

  /// Takes over saved contents; anything but 256 bytes is ignored.
  package mutating func restore(_ saved: [UInt8]) {
    if saved.count == bytes.count { bytes = saved }
  }
}
