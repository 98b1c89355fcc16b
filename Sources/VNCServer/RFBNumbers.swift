/// Numbers of the RFB protocol (RFC 6143 and the community's rfbproto document).
package enum RFBNumbers {
  /// Encodings and pseudo-encodings that this server has something to do with
  /// itself; libvncserver does the rest.
  package enum Encoding {
    package static let tight: Int32 = 7
    package static let ultra: Int32 = 9
    package static let zywrle: Int32 = 17
    package static let tightPNG: Int32 = -260
    package static let desktopSize: Int32 = -223
    package static let extendedDesktopSize: Int32 = -308
    package static let extendedKeyEvent: Int32 = -258
    package static let audio: Int32 = -259
    package static let ledState: Int32 = -261
    package static let desktopName: Int32 = -307
    package static let fence: Int32 = -312
    package static let continuousUpdates: Int32 = -313
  }

  package enum ServerMessage {
    package static let framebufferUpdate: UInt8 = 0
    package static let bell: UInt8 = 2
    package static let endOfContinuousUpdates: UInt8 = 150
    package static let fence: UInt8 = 248
    package static let qemu: UInt8 = 255
  }

  /// Kinds of QEMU's messages, in both directions.
  package enum QEMUMessage {
    package static let extendedKeyEvent: UInt8 = 0
    package static let audio: UInt8 = 1
  }

  /// Flags of a fence.
  package enum Fence {
    package static let blockBefore: UInt32 = 1
    package static let blockAfter: UInt32 = 2
    package static let syncNext: UInt32 = 4
    package static let request: UInt32 = 0x8000_0000
  }
}
