import DeviceModel
import Display

/// Takes an arbitrary byte string as what a viewer says, from its version on. Shared by
/// the fuzz target and the tests.
package enum ViewerFuzzing {
  /// The first byte is how many bytes come at a time (0: all), the others what comes.
  ///
  /// - Returns: whether the same messages came out in pieces and at once, none larger
  ///   than is allowed, no key stayed down, and sound was no more than was asked for.
  @discardableResult
  package static func run(_ input: [UInt8]) -> Bool {
    let bytes = input.dropFirst()
    let pieces = messages(bytes, piece: max(1, Int(input.first ?? 0)))
    let whole = messages(bytes, piece: max(1, bytes.count))
    // What came before an error in the same read is not told of.
    let agree = pieces.failed == whole.failed && (whole.failed || pieces.taken == whole.taken)
    return agree && pieces.taken.allSatisfy { $0.size <= 128 * 1024 } && act(on: pieces.taken)
  }

  private static func messages(_ bytes: ArraySlice<UInt8>, piece: Int)
    -> (taken: [ClientMessage], failed: Bool)
  {
    var parser = ClientMessageParser()
    var taken: [ClientMessage] = []
    var rest = bytes
    while !rest.isEmpty {
      guard let messages = try? parser.take(rest.prefix(piece)) else { return (taken, true) }
      taken += messages
      rest = rest.dropFirst(piece)
    }
    return (taken, false)
  }

  /// Does with the messages what the session does without a socket.
  private static func act(on messages: [ClientMessage]) -> Bool {
    var extensions = ViewerExtensions(name: "fuzz")
    var pacer = UpdatePacer()
    var sound = ViewerSound()
    var isSound = true
    var time: UInt64 = 0
    var down: Set<KeyCode> = []
    func press(_ events: [(KeyCode, Bool)]) {
      for (code, pressed) in events {
        if pressed { down.insert(code) } else { down.remove(code) }
      }
    }
    var keys = KeyTranslator(layout: .german)
    for message in messages {
      time += 1_000_000
      switch message {
      case .key(let keysym, let pressed):
        press(keys.translate(keysym: keysym, pressed: pressed))
      case .extendedKey(let keysym, let code, let pressed):
        press(
          KeyCode(extendedKeyEvent: code).map { keys.translate(code: $0, pressed: pressed) }
            ?? keys.translate(keysym: keysym, pressed: pressed))
      case .encodings(let encodings):
        _ = ViewerExtensions.setEncodings(for: encodings)
        _ = extensions.take(encodings)
        _ = extensions.pendingRects(leds: .capsLock, width: 640, height: 480)
        if !extensions.answersFences { pacer.forget() }
      case .fence(let flags, let payload):
        _ = ViewerExtensions.fenceAnswer(flags, payload)
        pacer.answered(payload.reduce(0) { $0 << 8 | UInt32($1) }, now: time)
      case .updateRequest(_, let rect), .continuousUpdates(_, let rect):
        let area = rect.intersection(Rect(x: 0, y: 0, width: 640, height: 480))
        if pacer.allowsUpdate { _ = pacer.sent(bytes: area.width * area.height, now: time) }
      case .audio(let request):
        sound.take(request)
        isSound = isSound && play(&sound)
      case .pointer(let buttons, _, _): keys.leds = KeyboardLEDs(rawValue: buttons & 7)
      default: break
      }
    }
    press(keys.releaseAll())
    return down.isEmpty && isSound
  }

  /// Whether 20 ms of sound are no more than the viewer's format makes of them, and none
  /// when it wants none.
  private static func play(_ sound: inout ViewerSound) -> Bool {
    let frames = (0..<960).map { AudioFrame(left: Int16($0), right: Int16(-$0)) }
    sound.take(.begin(rate: 48000))
    sound.take(.frames(frames, lost: 0))
    var bytes = 0
    while let message = sound.next() { bytes += message.count }
    return sound.isEnabled ? (8...40_000).contains(bytes) : bytes <= 8
  }
}
