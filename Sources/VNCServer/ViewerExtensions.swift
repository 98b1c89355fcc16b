import DeviceModel

/// The protocol extensions that libvncserver lacks, for one viewer: extended key
/// events, sound, LED state, desktop name, fences, continuous updates.
///
/// Pure: it knows what the viewer supports and what it has yet to be told, and
/// makes the bytes.
package struct ViewerExtensions {
  private var supported: Set<Int32> = []
  private var announced: Set<Int32> = []
  private var pending: Set<Int32> = []
  private var name: String
  /// The name the viewer knows.
  private var toldName: String

  /// - Parameter name: what the viewer is told when it connects.
  package init(name: String) {
    self.name = name
    toldName = name
  }

  package var answersFences: Bool { supported.contains(RFBNumbers.Encoding.fence) }

  /// Whether `pendingRects` has something to say.
  package var hasPending: Bool { !pending.isEmpty }

  /// What libvncserver is told of a viewer's encodings: all but the ones handled
  /// here, and those that are not offered (LZO, lossy ZRLE, PNG, and UltraVNC's
  /// lists of what libvncserver could do but may not here).
  package static func setEncodings(for encodings: [Int32]) -> [UInt8] {
    let left: Set<Int32> = [
      RFBNumbers.Encoding.extendedKeyEvent, RFBNumbers.Encoding.audio,
      RFBNumbers.Encoding.ledState, RFBNumbers.Encoding.desktopName, RFBNumbers.Encoding.fence,
      RFBNumbers.Encoding.continuousUpdates, RFBNumbers.Encoding.ultra,
      RFBNumbers.Encoding.zywrle, RFBNumbers.Encoding.tightPNG,
    ]
    let ultraVNC = Int32(bitPattern: 0xFFFE_0000)...Int32(bitPattern: 0xFFFE_0003)
    let kept = encodings.filter { !left.contains($0) && !ultraVNC.contains($0) }
    return [2, 0] + big(UInt16(clamping: kept.count)) + kept.flatMap { big($0) }
  }

  /// The viewer's encodings; returns what is said to it at once.
  package mutating func take(_ encodings: [Int32]) -> [UInt8] {
    supported = Set(encodings)
    var bytes: [UInt8] = []
    if isNew(RFBNumbers.Encoding.fence) {
      bytes += Self.fence(RFBNumbers.Fence.request, [])
    }
    if isNew(RFBNumbers.Encoding.continuousUpdates) {
      bytes.append(RFBNumbers.ServerMessage.endOfContinuousUpdates)
    }
    for encoding in [
      RFBNumbers.Encoding.extendedKeyEvent, RFBNumbers.Encoding.audio,
      RFBNumbers.Encoding.ledState,
    ] where isNew(encoding) {
      pending.insert(encoding)
    }
    // TigerVNC asks for the size of its window after its first update, or never: that one
    // has to say already that it may.
    if !pending.isEmpty, isNew(RFBNumbers.Encoding.extendedDesktopSize) {
      pending.insert(RFBNumbers.Encoding.extendedDesktopSize)
    }
    pending.formIntersection(supported)
    nameChanged(name)
    return bytes
  }

  private mutating func isNew(_ encoding: Int32) -> Bool {
    supported.contains(encoding) && announced.insert(encoding).inserted
  }

  package mutating func ledsChanged() {
    if supported.contains(RFBNumbers.Encoding.ledState) {
      pending.insert(RFBNumbers.Encoding.ledState)
    }
  }

  package mutating func nameChanged(_ name: String) {
    self.name = name
    if supported.contains(RFBNumbers.Encoding.desktopName) && name != toldName {
      pending.insert(RFBNumbers.Encoding.desktopName)
    }
  }

  /// An update of pseudo-rectangles with all that is pending, for a frame of that size.
  package mutating func pendingRects(leds: KeyboardLEDs, width: Int, height: Int) -> [UInt8] {
    let items = pending.sorted()
    pending = []
    guard !items.isEmpty else { return [] }
    var bytes = [RFBNumbers.ServerMessage.framebufferUpdate, 0]
    bytes += Self.big(UInt16(items.count))
    let size = Self.big(UInt16(clamping: width)) + Self.big(UInt16(clamping: height))
    for item in items {
      let isSize = item == RFBNumbers.Encoding.extendedDesktopSize
      bytes += [0, 0, 0, 0] + (isSize ? size : [0, 0, 0, 0]) + Self.big(item)
      switch item {
      case RFBNumbers.Encoding.extendedDesktopSize:
        // One screen, number 1 as libvncserver has it, without flags.
        bytes += [1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0] + size + [0, 0, 0, 0]
      case RFBNumbers.Encoding.ledState: bytes.append(leds.rawValue)
      case RFBNumbers.Encoding.desktopName:
        toldName = name
        let text = Array(name.utf8)
        bytes += Self.big(UInt32(clamping: text.count)) + text
      default: break
      }
    }
    return bytes
  }

  /// Asks the viewer to say when it has read everything so far.
  package static func fenceRequest(_ identifier: UInt32) -> [UInt8] {
    fence(RFBNumbers.Fence.request | RFBNumbers.Fence.blockBefore, big(identifier))
  }

  /// The answer to a viewer's fence. Its messages are taken in order, so every
  /// flag of it is kept by answering in turn.
  package static func fenceAnswer(_ flags: UInt32, _ payload: [UInt8]) -> [UInt8] {
    let known =
      RFBNumbers.Fence.blockBefore | RFBNumbers.Fence.blockAfter | RFBNumbers.Fence.syncNext
    return fence(flags & known, payload)
  }

  private static func fence(_ flags: UInt32, _ payload: [UInt8]) -> [UInt8] {
    [RFBNumbers.ServerMessage.fence, 0, 0, 0] + big(flags)
      + [UInt8(truncatingIfNeeded: payload.count)] + payload
  }

  private static func big(_ value: some FixedWidthInteger) -> [UInt8] {
    // SAFETY: the bytes of one integer, read while it is alive.
    withUnsafeBytes(of: value.bigEndian) { Array($0) }
  }
}
