import DeviceModel

/// What a viewer says, one message each.
package enum ClientMessage: Hashable, Sendable {
  /// The 12 bytes of the protocol version, reduced to one that is spoken here.
  case version(minor: Int)
  case securityType(UInt8)
  case clientInit(shared: UInt8)
  case key(keysym: UInt32, pressed: Bool)
  /// QEMU's extended key event. `keycode` is as on the wire.
  case extendedKey(keysym: UInt32, keycode: UInt32, pressed: Bool)
  /// `buttons` as on the wire: bit 0 left … bits 3 to 6 wheels.
  case pointer(buttons: UInt8, x: Int, y: Int)
  case encodings([Int32])
  case updateRequest(incremental: Bool, Rect)
  /// Latin-1 text.
  case cutText([UInt8])
  case fence(flags: UInt32, payload: [UInt8])
  case continuousUpdates(enabled: Bool, Rect)
  case audio(AudioRequest)
  /// Whole, as received, for libvncserver: pixel format, extended clipboard, xvp.
  case passed([UInt8])
  case setDesktopSize([UInt8])

  /// About how many bytes it keeps.
  var size: Int {
    switch self {
    case .cutText(let bytes), .passed(let bytes), .setDesktopSize(let bytes): bytes.count
    case .encodings(let encodings): encodings.count * 4
    case .fence(_, let payload): payload.count
    default: 0
    }
  }
}

/// Why a viewer's bytes cannot be taken.
package struct ClientProtocolError: Error, CustomStringConvertible, Hashable {
  package let description: String
}

/// Cuts a viewer's bytes into messages. Nothing a viewer sends reaches
/// libvncserver or the guest but through here.
///
/// Pure: bytes in, messages out. Memory is bounded by the longest message kept
/// (128 KiB); longer clipboards are skipped, not stored. File transfer, text
/// chat, server-side scaling, single windows and input locks are never passed on.
package struct ClientMessageParser {
  private enum Phase { case version, securityType, clientInit, normal }

  /// What a viewer may put into one clipboard message that is kept.
  package static let maximumCutText = 64 * 1024
  private static let maximumExtendedCutText = 96 * 1024
  /// Encodings beyond this many are ignored.
  package static let maximumEncodings = 256

  private var phase = Phase.version
  private var minorVersion = 8
  private var buffer: [UInt8] = []
  private var position = 0
  private var skipping = 0

  package init() {}

  /// Whether the handshake is over.
  package var isInitialised: Bool { phase == .normal }

  /// Takes bytes as they come; returns the messages they complete.
  package mutating func take(_ bytes: some Collection<UInt8>) throws(ClientProtocolError)
    -> [ClientMessage]
  {
    buffer += bytes
    var messages: [ClientMessage] = []
    while true {
      discardSkipped()
      guard skipping == 0, let message = try next() else { break }
      if let message = message.value { messages.append(message) }
    }
    buffer.removeFirst(position)
    position = 0
    return messages
  }

  /// A message that was complete; `value` is `nil` for one that is ignored.
  private struct Complete {
    var value: ClientMessage?
  }

  private mutating func discardSkipped() {
    let count = min(skipping, buffer.count - position)
    position += count
    skipping -= count
  }

  private var available: Int { buffer.count - position }

  /// The next `count` bytes if they are there; then they are taken.
  private mutating func take(_ count: Int) -> ArraySlice<UInt8>? {
    guard available >= count else { return nil }
    defer { position += count }
    return buffer[position..<(position + count)]
  }

  private func byte(_ offset: Int) -> UInt8 { buffer[position + offset] }

  private func big16(_ offset: Int) -> Int {
    Int(byte(offset)) << 8 | Int(byte(offset + 1))
  }

  private func big32(_ offset: Int) -> UInt32 {
    UInt32(big16(offset)) << 16 | UInt32(big16(offset + 2))
  }

  private func rect(_ offset: Int) -> Rect {
    Rect(
      x: big16(offset), y: big16(offset + 2), width: big16(offset + 4),
      height: big16(offset + 6))
  }

  private mutating func next() throws(ClientProtocolError) -> Complete? {
    guard available > 0 else { return nil }
    switch phase {
    case .version: return try nextVersion()
    case .securityType:
      let type = byte(0)
      position += 1
      phase = .clientInit
      return Complete(value: .securityType(type))
    case .clientInit:
      let shared = byte(0)
      position += 1
      phase = .normal
      return Complete(value: .clientInit(shared: shared))
    case .normal: return try nextNormal()
    }
  }

  private mutating func nextVersion() throws(ClientProtocolError) -> Complete? {
    guard available >= 12 else { return nil }
    let text = Array(buffer[position..<(position + 12)])
    let digits = text[4..<7] + text[8..<11]
    guard Array(text[..<4]) == Array("RFB ".utf8), text[7] == 0x2E, text[11] == 0x0A,
      digits.allSatisfy({ (0x30...0x39).contains($0) })
    else {
      throw ClientProtocolError(description: "the viewer does not speak RFB")
    }
    let minor = text[8..<11].reduce(0) { $0 * 10 + Int($1 - 0x30) }
    position += 12
    minorVersion = minor >= 8 ? 8 : minor == 7 ? 7 : 3
    phase = minorVersion == 3 ? .clientInit : .securityType
    return Complete(value: .version(minor: minorVersion))
  }

  private mutating func nextNormal() throws(ClientProtocolError) -> Complete? {
    switch byte(0) {
    case 0: return try setPixelFormat()
    case 2: return setEncodings()
    case 3:
      guard available >= 10 else { return nil }
      return consume(10, .updateRequest(incremental: byte(1) != 0, rect(2)))
    case 4:
      guard available >= 8 else { return nil }
      return consume(8, .key(keysym: big32(4), pressed: byte(1) != 0))
    case 5:
      guard available >= 6 else { return nil }
      return consume(6, .pointer(buttons: byte(1), x: big16(2), y: big16(4)))
    case 6: return cutText()
    // UltraVNC's and Palm's: scale, server input, single window.
    case 8, 9, 15: return ignore(4)
    case 10: return ignore(6)
    case 150:
      guard available >= 10 else { return nil }
      return consume(10, .continuousUpdates(enabled: byte(1) != 0, rect(2)))
    case 248: return try fence()
    case 250: return take(4).map { Complete(value: .passed(Array($0))) }
    case 251: return setDesktopSize()
    case 255: return try qemuMessage()
    case 7: throw ClientProtocolError(description: "file transfer is not offered")
    case 11: throw ClientProtocolError(description: "text chat is not offered")
    case let type:
      throw ClientProtocolError(description: "unknown message type \(type)")
    }
  }

  private mutating func consume(_ count: Int, _ message: ClientMessage) -> Complete {
    position += count
    return Complete(value: message)
  }

  private mutating func ignore(_ count: Int) -> Complete? {
    take(count).map { _ in Complete(value: nil) }
  }

  private mutating func setPixelFormat() throws(ClientProtocolError) -> Complete? {
    guard available >= 20 else { return nil }
    let bits = byte(4)
    let isTrueColour = byte(7) != 0
    let shifts = [byte(14), byte(15), byte(16)]
    guard [8, 16, 32].contains(bits), isTrueColour || bits == 8,
      shifts.allSatisfy({ $0 < bits })
    else {
      throw ClientProtocolError(description: "unsupported pixel format (\(bits) bits)")
    }
    return take(20).map { Complete(value: .passed(Array($0))) }
  }

  private mutating func setEncodings() -> Complete? {
    guard available >= 4 else { return nil }
    let count = big16(2)
    let kept = min(count, Self.maximumEncodings)
    guard available >= 4 + kept * 4 else { return nil }
    let encodings = (0..<kept).map { Int32(bitPattern: big32(4 + $0 * 4)) }
    position += 4 + kept * 4
    skipping = (count - kept) * 4
    return Complete(value: .encodings(encodings))
  }

  private mutating func cutText() -> Complete? {
    guard available >= 8 else { return nil }
    let length = Int32(bitPattern: big32(4))
    // Extended clipboard (0xC0A1E5CE): a negative length.
    if length < 0 {
      let count = Int(length.magnitude)
      guard count >= 4 && count <= Self.maximumExtendedCutText else {
        position += 8
        skipping = count
        return Complete(value: nil)
      }
      return take(8 + count).map { Complete(value: .passed(Array($0))) }
    }
    guard length <= Self.maximumCutText else {
      position += 8
      skipping = Int(length)
      return Complete(value: nil)
    }
    return take(8 + Int(length)).map { Complete(value: .cutText(Array($0.dropFirst(8)))) }
  }

  private mutating func fence() throws(ClientProtocolError) -> Complete? {
    guard available >= 9 else { return nil }
    let length = Int(byte(8))
    guard length <= 64 else {
      throw ClientProtocolError(description: "a fence of \(length) bytes")
    }
    guard available >= 9 + length else { return nil }
    let flags = big32(4)
    return take(9 + length).map {
      Complete(value: .fence(flags: flags, payload: Array($0.dropFirst(9))))
    }
  }

  private mutating func setDesktopSize() -> Complete? {
    guard available >= 8 else { return nil }
    return take(8 + Int(byte(6)) * 16).map { Complete(value: .setDesktopSize(Array($0))) }
  }

  private mutating func qemuMessage() throws(ClientProtocolError) -> Complete? {
    guard available >= 2 else { return nil }
    switch byte(1) {
    case RFBNumbers.QEMUMessage.extendedKeyEvent: return extendedKey()
    case RFBNumbers.QEMUMessage.audio: return try audio()
    case let kind: throw ClientProtocolError(description: "unknown QEMU message \(kind)")
    }
  }

  private mutating func audio() throws(ClientProtocolError) -> Complete? {
    guard available >= 4 else { return nil }
    switch big16(2) {
    case 0: return consume(4, .audio(.enable))
    case 1: return consume(4, .audio(.disable))
    case 2: return try audioFormat()
    case let operation:
      throw ClientProtocolError(description: "unknown operation \(operation) of sound")
    }
  }

  private mutating func audioFormat() throws(ClientProtocolError) -> Complete? {
    guard available >= 10 else { return nil }
    let (channels, rate) = (Int(byte(5)), Int(big32(6)))
    guard let sample = AudioFormat.Sample(rawValue: byte(4)), (1...2).contains(channels),
      AudioFormat.rates.contains(rate)
    else {
      throw ClientProtocolError(
        description: "unsupported sound (format \(byte(4)), \(channels) channels, \(rate) Hz)")
    }
    return consume(
      10, .audio(.format(AudioFormat(sample, channels: channels, rate: rate))))
  }

  private mutating func extendedKey() -> Complete? {
    guard available >= 12 else { return nil }
    return consume(
      12, .extendedKey(keysym: big32(4), keycode: big32(8), pressed: big16(2) != 0))
  }
}
