/// Bits of the status register (ATA/ATAPI-6, 7.15).
package struct ATAStatus: OptionSet, Codable, Sendable, Equatable {
  package let rawValue: UInt8
  package init(rawValue: UInt8) { self.rawValue = rawValue }

  package static let error = ATAStatus(rawValue: 0x01)
  package static let dataRequest = ATAStatus(rawValue: 0x08)
  package static let seekComplete = ATAStatus(rawValue: 0x10)
  package static let fault = ATAStatus(rawValue: 0x20)
  package static let ready = ATAStatus(rawValue: 0x40)
  package static let busy = ATAStatus(rawValue: 0x80)
  /// At rest.
  static let idle: ATAStatus = [.ready, .seekComplete]
}

/// Bits of the error register (ATA/ATAPI-6, 7.9).
enum ATAError {
  static let aborted: UInt8 = 0x04
  static let notFound: UInt8 = 0x10
  static let uncorrectable: UInt8 = 0x40
}

/// The command block registers of one drive. What was in a register before its
/// last write stays readable (HOB), since 48-bit commands write each one twice.
package struct TaskFile: Codable, Sendable, Equatable {
  package struct Pair: Codable, Sendable, Equatable {
    package var current: UInt8 = 0
    package var previous: UInt8 = 0

    mutating func write(_ value: UInt8) {
      previous = current
      current = value
    }
  }

  package var features = Pair()
  package var sectorCount = Pair()
  package var lbaLow = Pair()
  package var lbaMid = Pair()
  package var lbaHigh = Pair()
  package var device: UInt8 = 0
  package var status = ATAStatus.idle
  package var error: UInt8 = 0

  static let lbaBit: UInt8 = 0x40
  static let driveBit: UInt8 = 0x10

  /// LBA mid and high as the byte count of packet commands.
  var byteCount: Int {
    get { Int(lbaMid.current) | Int(lbaHigh.current) << 8 }
    set {
      lbaMid.current = UInt8(truncatingIfNeeded: newValue)
      lbaHigh.current = UInt8(truncatingIfNeeded: newValue >> 8)
    }
  }

  /// The signature after reset (ATA/ATAPI-6, 9.12).
  mutating func setSignature(isPacketDevice: Bool) {
    device &= 0x10
    sectorCount.current = 1
    lbaLow.current = 1
    byteCount = isPacketDevice ? 0xEB14 : 0
  }
}
