import DeviceModel

/// The speeds of USB 2.0 devices, by the default protocol speed IDs of xHCI (section
/// 7.2.2.1.1).
package enum USBSpeed: UInt8, Sendable {
  case full = 1
  case high = 3
}

/// The eight bytes of a SETUP packet (USB 2.0, section 9.3).
struct USBSetup: Codable, Sendable, Equatable {
  enum Kind: UInt8 {
    case standard = 0
    case classSpecific = 1
    case vendor = 2
    case reserved = 3
  }

  enum Recipient: UInt8 {
    case device = 0
    case interface = 1
    case endpoint = 2
    case other = 3
  }

  var requestType: UInt8
  var request: UInt8
  var value: UInt16
  var index: UInt16
  var length: UInt16

  /// From the parameter of a Setup Stage TRB, which is the packet.
  init(_ packet: UInt64) {
    requestType = UInt8(truncatingIfNeeded: packet)
    request = UInt8(truncatingIfNeeded: packet >> 8)
    value = UInt16(truncatingIfNeeded: packet >> 16)
    index = UInt16(truncatingIfNeeded: packet >> 32)
    length = UInt16(truncatingIfNeeded: packet >> 48)
  }

  /// The data stage, if there is one, goes to the host.
  var isIn: Bool { requestType & 0x80 != 0 }
  var kind: Kind { Kind(rawValue: requestType >> 5 & 3) ?? .reserved }
  var recipient: Recipient { Recipient(rawValue: requestType & 0x1F) ?? .other }
}

/// What an endpoint answers an IN token.
enum USBAnswer: Equatable {
  /// One packet, at most as long as the endpoint's largest.
  case data([UInt8])
  /// NAK: nothing now; the device says when there is.
  case nothing
  case stall
}

/// A device behind a port of a USB controller. Everything happens under the device lock.
package protocol USBDevice: AnyObject {
  var speed: USBSpeed { get }
  /// The controller, while there is one.
  var host: (any USBHost)? { get set }
}

/// The bus's side of a device. `USBDevice` is what other targets need to see.
protocol USBFunction: USBDevice {
  /// The port was reset, or lost its power: to the default state (section 9.1.1.3).
  func resetBus()
  /// A whole control transfer but SET_ADDRESS, which is the controller's.
  ///
  /// - Parameter data: of the data stage to the device.
  /// - Returns: what the device sends; `nil` to stall.
  func control(_ setup: USBSetup, data: [UInt8]) -> [UInt8]?
  /// An IN token for an interrupt endpoint; `nil` when there is no such endpoint.
  func takePacket(endpoint: Int) -> USBAnswer?
}

/// What a device is given by the controller.
package protocol USBHost: AnyObject {
  /// Whether the guest's driver asks this IN endpoint for packets, though perhaps not at
  /// this moment.
  func polls(_ device: any USBDevice, endpoint: Int) -> Bool
  /// The device has a packet for an IN endpoint, which it may have answered NAK before.
  func deviceIsReady(_ device: any USBDevice)
}
