/// The addresses of a PC. Nothing outside this target knows them.
enum PhysicalMap {
  /// RAM below the legacy video window.
  static let conventionalEnd: UInt64 = 0xA_0000
  static let legacyVideo: UInt64 = 0xA_0000
  static let legacyVideoSize: UInt64 = 0x2_0000
  /// Option ROMs and the BIOS segments: RAM here, loaded anew at each reset, so
  /// that shadowing by the host bridge (PAM) has nothing left to switch.
  static let shadowStart: UInt64 = 0xC_0000
  static let biosSegments: UInt64 = 0xE_0000
  static let shadowEnd: UInt64 = 0x10_0000
  /// Where SMBIOS's entry point may be (DSP0134 2.8, section 5.2).
  static let smbiosAnchors: Range<UInt64> = 0xF_0000..<shadowEnd
  /// RAM below 4 GiB ends here at the latest; above is room for PCI.
  static let lowLimit: UInt64 = 0xC000_0000
  static let pciEnd: UInt64 = 0xFEC0_0000
  /// Pages that KVM needs on Intel hosts, in a part of the map that is reserved.
  static let identityMap: UInt64 = 0xFEFF_C000
  static let realModeTSS: UInt64 = 0xFEFF_D000
  static let fourGiB: UInt64 = 0x1_0000_0000

  /// I/O ports that PCI functions may be given.
  static let pciPorts: Range<UInt32> = 0xC000..<0xFF00

  /// Where video memory of `size` bytes lies unless firmware moves it: where
  /// SeaBIOS would put 16 MiB, or as high as it fits.
  static func videoMemory(size: Int) -> UInt32 {
    guard size > 16 << 20 else { return 0xFD00_0000 }
    let aligned = 0xFE00_0000 - UInt32(truncatingIfNeeded: size)
    return aligned & ~(UInt32(truncatingIfNeeded: size) - 1)
  }
}

/// How RAM of a given size is spread over guest-physical space.
package struct MemoryLayoutMap: Sendable, Equatable {
  package let low: UInt64
  package let high: UInt64

  package init(size: UInt64) {
    low = min(size, PhysicalMap.lowLimit)
    high = size - low
  }

  package var total: UInt64 { low + high }

  /// The offset in the RAM file of `count` bytes at `address`; `nil` unless all of
  /// them are RAM in one piece.
  package func offset(of address: UInt64, count: Int) -> Int? {
    guard count >= 0 else { return nil }
    let (end, wraps) = address.addingReportingOverflow(UInt64(count))
    guard !wraps else { return nil }
    if end <= low {
      let inVideo = end > PhysicalMap.legacyVideo && address < PhysicalMap.shadowStart
      return inVideo && count > 0 ? nil : Int(address)
    }
    let high = self.high
    guard address >= PhysicalMap.fourGiB, end - PhysicalMap.fourGiB <= high else { return nil }
    return Int(low + (address - PhysicalMap.fourGiB))
  }
}
