/// The descriptors of a device with one HID interface and one interrupt IN endpoint (USB
/// 2.0, section 9.6; HID 1.11, section 6.2), which runs at full and at high speed.
struct HIDDescriptors {
  enum DescriptorType {
    static let device: UInt8 = 1
    static let configuration: UInt8 = 2
    static let string: UInt8 = 3
    static let interface: UInt8 = 4
    static let endpoint: UInt8 = 5
    static let deviceQualifier: UInt8 = 6
    static let otherSpeedConfiguration: UInt8 = 7
    static let hid: UInt8 = 0x21
    static let report: UInt8 = 0x22
  }

  private enum Text: UInt8 {
    case languages = 0
    case manufacturer = 1
    case product = 2
    case serial = 3
  }

  static let endpointAddress: UInt8 = 0x81
  /// Of endpoint 0 (64 at either speed) and of the interrupt endpoint.
  private static let controlPacketSize: UInt8 = 64
  static let packetSize = 8
  private static let englishUS: UInt16 = 0x0409
  private static let hidVersion: UInt16 = 0x0111
  /// Interval of 1 ms: 2^(4-1) microframes at high speed, one frame at full speed.
  private static let highSpeedInterval: UInt8 = 4
  private static let fullSpeedInterval: UInt8 = 1
  /// Units of 2 mA.
  private static let maximumPower: UInt8 = 50

  let product: String
  let serial: String
  /// QEMU's devices of the same kind, which stock systems know.
  let vendorID: UInt16 = 0x0627
  let productID: UInt16 = 0x0001
  /// 1 when the boot protocol is supported.
  let subclass: UInt8
  /// Boot interface protocol: 1 for a keyboard, 0 for none.
  let interfaceProtocol: UInt8
  let report: [UInt8]

  /// GET_DESCRIPTOR of the device; `nil` for one that there is not.
  func descriptor(type: UInt8, index: UInt8) -> [UInt8]? {
    switch (type, index) {
    case (DescriptorType.device, 0): device
    case (DescriptorType.configuration, 0):
      configuration(type: type, interval: Self.highSpeedInterval)
    case (DescriptorType.otherSpeedConfiguration, 0):
      configuration(type: type, interval: Self.fullSpeedInterval)
    case (DescriptorType.deviceQualifier, 0): qualifier
    case (DescriptorType.string, _): text(index)
    default: nil
    }
  }

  /// GET_DESCRIPTOR of the interface.
  func interfaceDescriptor(type: UInt8) -> [UInt8]? {
    switch type {
    case DescriptorType.hid: hid
    case DescriptorType.report: report
    default: nil
    }
  }

  private var device: [UInt8] {
    [18, DescriptorType.device] + LittleEndian.bytes(UInt16(0x0200))
      + [0, 0, 0, Self.controlPacketSize]
      + LittleEndian.bytes(vendorID) + LittleEndian.bytes(productID)
      + LittleEndian.bytes(UInt16(0x0100))
      + [Text.manufacturer.rawValue, Text.product.rawValue, Text.serial.rawValue, 1]
  }

  private var qualifier: [UInt8] {
    [10, DescriptorType.deviceQualifier] + LittleEndian.bytes(UInt16(0x0200))
      + [0, 0, 0, Self.controlPacketSize, 1, 0]
  }

  private var hid: [UInt8] {
    [9, DescriptorType.hid] + LittleEndian.bytes(Self.hidVersion)
      + [0, 1, DescriptorType.report] + LittleEndian.bytes(UInt16(report.count))
  }

  private func configuration(type: UInt8, interval: UInt8) -> [UInt8] {
    let interface: [UInt8] = [
      9, DescriptorType.interface, 0, 0, 1, 3, subclass, interfaceProtocol, 0,
    ]
    let endpoint: [UInt8] =
      [7, DescriptorType.endpoint, Self.endpointAddress, 3]
      + LittleEndian.bytes(UInt16(Self.packetSize)) + [interval]
    let rest = interface + hid + endpoint
    return [9, type] + LittleEndian.bytes(UInt16(9 + rest.count))
      + [1, 1, 0, 0x80, Self.maximumPower] + rest
  }

  private func text(_ index: UInt8) -> [UInt8]? {
    let units: [UInt16]
    switch Text(rawValue: index) {
    case .languages: units = [Self.englishUS]
    case .manufacturer: units = Array("Carrel".utf16)
    case .product: units = Array(product.utf16)
    case .serial: units = Array(serial.utf16)
    case nil: return nil
    }
    return [UInt8(2 + units.count * 2), DescriptorType.string]
      + units.flatMap { LittleEndian.bytes($0) }
  }
}
