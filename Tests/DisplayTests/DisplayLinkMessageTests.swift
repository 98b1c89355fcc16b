import DeviceModel
import Display
import Testing

@Suite("Display link messages")
struct DisplayLinkMessageTests {
  static let samples: [DisplayLinkMessage] = [
    .hello(version: 1, name: "désk"),
    .surface(
      Scanout(
        source: .videoMemory, offset: 4096, stride: 4096, width: 1024, height: 768,
        format: .xrgb8888)),
    .surface(
      Scanout(
        source: .rendered, offset: 0, stride: 2160, width: 720, height: 400, format: .rgb888)),
    .damage(sequence: 7, [Rect(x: 1, y: 2, width: 3, height: 4)]),
    .damage(sequence: .max, []),
    .cursor(.hidden),
    .leds([.numLock, .capsLock]),
    .bell,
    .name("Ärger"),
    .key(KeyCode(0xE01C), pressed: true),
    .key(KeyCode(0x1E), pressed: false),
    .pointer(x: 65535, y: 0, buttons: [.left, .extra], wheel: -1, horizontalWheel: 127),
    .resize(width: 1920, height: 1080),
    .clipboard("naïve\n€"),
    .power(.reset),
    .pace(sequence: 3),
    .audio(.begin(rate: 48000)),
    .audio(
      .frames([AudioFrame(left: 1, right: -2), AudioFrame(left: .max, right: .min)], lost: 9)),
    .audio(.end),
    .recording(true),
    .listen(sound: true, microphone: false),
    .listen(sound: false, microphone: true),
    .microphone([AudioFrame(left: -3, right: 4)]),
  ]

  @Test("what is encoded is what is decoded", arguments: samples)
  func roundTrip(message: DisplayLinkMessage) throws {
    #expect(try DisplayLinkMessage(decoding: message.encoded()) == message)
  }

  @Test("a cursor's pixels survive")
  func cursor() throws {
    let image = try #require(
      CursorImage(
        width: 3, height: 2, hotX: 2, hotY: 1, pixels: (0..<24).map { UInt8($0) }))
    #expect(
      try DisplayLinkMessage(decoding: DisplayLinkMessage.cursor(image).encoded())
        == .cursor(image))
  }

  @Test("every truncation and every extension of a packet is refused", arguments: samples)
  func lengths(message: DisplayLinkMessage) {
    let bytes = message.encoded()
    let isOpenEnded =
      switch message {
      case .hello, .name, .clipboard, .damage, .cursor, .audio(.frames): true
      default: false
      }
    for count in 0..<bytes.count where !isOpenEnded || count == 0 {
      #expect(throws: DisplayLinkError.self) {
        try DisplayLinkMessage(decoding: Array(bytes[..<count]))
      }
    }
    if !isOpenEnded {
      #expect(throws: DisplayLinkError.self) { try DisplayLinkMessage(decoding: bytes + [0]) }
    }
  }

  @Test("random and mutated packets are refused or decoded, never fatal", arguments: 0..<8)
  func fuzz(seed: Int) {
    var generator = SeededGenerator(UInt64(seed) + 100)
    for _ in 0..<400 {
      var bytes = Self.samples.randomElement(using: &generator)?.encoded() ?? []
      for _ in 0..<Int.random(in: 0...4, using: &generator) where !bytes.isEmpty {
        bytes[Int.random(in: bytes.indices, using: &generator)] = .random(
          in: 0...255, using: &generator)
      }
      if Bool.random(using: &generator) {
        bytes.removeLast(Int.random(in: 0...bytes.count, using: &generator))
      }
      guard let message = try? DisplayLinkMessage(decoding: bytes) else { continue }
      // What was accepted means the same when sent on.
      #expect((try? DisplayLinkMessage(decoding: message.encoded())) == message)
    }
  }

  @Test("surfaces whose rows overlap or sides are absurd are refused")
  func surfaces() {
    for scanout in [
      Scanout(
        source: .rendered, offset: 0, stride: 100, width: 100, height: 2, format: .xrgb8888),
      Scanout(
        source: .rendered, offset: 0, stride: 65536, width: 9000, height: 2, format: .xrgb8888),
      Scanout(source: .rendered, offset: 0, stride: 400, width: 0, height: 2, format: .xrgb8888),
    ] {
      #expect(throws: DisplayLinkError.self) {
        try DisplayLinkMessage(decoding: DisplayLinkMessage.surface(scanout).encoded())
      }
    }
  }

  @Test("whether a surface fits its memory is decided without overflow")
  func fitting() {
    var scanout = Scanout(
      source: .videoMemory, offset: 16, stride: 400, width: 100, height: 10, format: .xrgb8888)
    #expect(scanout.fits(in: 16 + 4000))
    #expect(!scanout.fits(in: 16 + 3999))
    scanout.offset = .max
    #expect(!scanout.fits(in: .max))
    scanout.stride = .max
    #expect(!scanout.fits(in: .max))
  }

  @Test("a text too long for a packet is cut at a character")
  func longTexts() throws {
    let text = String(repeating: "€", count: 60000)
    let bytes = DisplayLinkMessage.clipboard(text).encoded()
    #expect(bytes.count <= DisplayLinkMessage.maximumSize)
    guard case .clipboard(let cut) = try DisplayLinkMessage(decoding: bytes) else {
      Issue.record("not a clipboard")
      return
    }
    #expect(text.hasPrefix(cut))
    #expect(cut.utf8.count > DisplayLinkMessage.maximumText - 4)
  }

  @Test("sound that is no sound is refused")
  func sound() {
    let frames = DisplayLinkMessage.audio(
      .frames([AudioFrame(left: 1, right: 2), AudioFrame(left: 3, right: 4)], lost: 0)
    ).encoded()
    for bytes in [
      Array(frames.dropLast()), Array(frames.dropLast(8)), [5], [5, 3], [5, 0, 0],
      [5, 1, 0, 0, 0, 0], [5, 1, 255, 255, 255, 255], [23], [23, 1, 2],
      frames + Array(repeating: 0, count: DisplayLinkMessage.maximumFrames * 4),
    ] {
      #expect(throws: DisplayLinkError.self) { try DisplayLinkMessage(decoding: bytes) }
    }
  }

  @Test("more frames than a packet has are cut to those, and a rate to what there is")
  func longSound() throws {
    let frames = (0..<5000).map { AudioFrame(left: Int16($0), right: 0) }
    let most = Array(frames.prefix(DisplayLinkMessage.maximumFrames))
    for (message, cut): (DisplayLinkMessage, DisplayLinkMessage) in [
      (.audio(.frames(frames, lost: 1)), .audio(.frames(most, lost: 1))),
      (.microphone(frames), .microphone(most)),
      (.audio(.begin(rate: -1)), .audio(.begin(rate: 4000))),
    ] {
      #expect(try DisplayLinkMessage(decoding: message.encoded()) == cut)
    }
  }

  @Test("a name longer than any desktop's is refused")
  func longNames() {
    var bytes = DisplayLinkMessage.name("").encoded()
    bytes += Array(repeating: UInt8(ascii: "n"), count: DisplayLinkMessage.maximumName)
    #expect(throws: Never.self) { try DisplayLinkMessage(decoding: bytes) }
    bytes.append(UInt8(ascii: "n"))
    #expect(throws: DisplayLinkError.self) { try DisplayLinkMessage(decoding: bytes) }
  }
}
