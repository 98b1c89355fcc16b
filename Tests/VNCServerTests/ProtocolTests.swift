import DeviceModel
import Display
import LinuxSystem
import Testing
import VNCServer

@Suite("RFB on the wire", .timeLimit(.minutes(4)))
struct ProtocolTests {
  @Test(
    "handshakes of every version end in the desktop's size and name",
    arguments: ["003.003", "003.007", "003.008", "003.889"])
  func handshake(version: String) throws {
    let connection = try Connection(scanout(320, 200))
    if version == "003.889" {
      // Newer than 3.8 counts as 3.8.
      try connection.viewer.handshake(version: version)
    } else {
      try connection.viewer.handshake(version: version)
    }
    #expect(connection.viewer.width == 320)
    #expect(connection.viewer.height == 200)
    #expect(connection.viewer.name == "test desk")
  }

  @Test(
    "a picture and its changes arrive exactly", arguments: [[0], [5, 0], [1, 5, 0]] as [[Int32]])
  func pictures(encodings: [Int32]) throws {
    let size = scanout(300, 170)
    let connection = try Connection(size)
    connection.machine.paint(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings(encodings)
    try connection.viewer.request(incremental: false)
    try connection.viewer.update { connection.isExact(size) }
    for round in 1...5 {
      connection.machine.fill(
        size, Rect(x: round * 31, y: round * 17, width: 40 + round, height: 3), UInt32(round * 9999)
      )
      try connection.viewer.update { connection.isExact(size) }
    }
    connection.machine.paint(size, seed: 3)
    try connection.viewer.update { connection.isExact(size) }
  }

  @Test("damage without a change sends nothing, and an idle screen is silent")
  func silence() throws {
    let size = scanout(320, 200)
    let connection = try Connection(size)
    connection.machine.paint(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0])
    try connection.viewer.request(incremental: false)
    try connection.viewer.update { connection.isExact(size) }
    try connection.viewer.request()
    connection.machine.server.publish(
      damage: Region(Rect(x: 0, y: 0, width: 320, height: 200)))
    #expect(!connection.viewer.hasMore(within: 700))
  }

  @Test("only what changed is sent")
  func smallChange() throws {
    let size = scanout(640, 480)
    let connection = try Connection(size)
    connection.machine.paint(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0])
    try connection.viewer.request(incremental: false)
    try connection.viewer.update { connection.isExact(size) }
    let before = connection.viewer.received
    connection.machine.set(size, x: 100, y: 100, 0xABCDEF)
    connection.machine.server.publish(
      damage: Region(Rect(x: 0, y: 0, width: 640, height: 480)))
    try connection.viewer.update { connection.isExact(size) }
    #expect(connection.viewer.received - before < 64 * 16 * 4 + 64)
  }

  @Test("extended keys are announced once and carry scan codes")
  func extendedKeys() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -258])
    let event = try connection.viewer.next()
    #expect(
      event
        == .update([.init(rect: Rect(x: 0, y: 0, width: 0, height: 0), encoding: -258)]))
    try connection.viewer.setEncodings([0, -258])
    for (code, pressed): (UInt32, Bool) in [
      (0x1E, true), (0x1E, false), (0x9C, true), (0x9C, false), (0xC6, true), (0xB7, true),
    ] {
      try connection.viewer.extendedKey(code, pressed, keysym: 0x71)
    }
    #expect(connection.machine.wait { $0.inputs.count == 6 })
    #expect(
      connection.machine.received.inputs == [
        .key(KeyCode(0x1E), pressed: true), .key(KeyCode(0x1E), pressed: false),
        .key(KeyCode(0xE01C), pressed: true), .key(KeyCode(0xE01C), pressed: false),
        .key(KeyCode(0xE11D), pressed: true), .key(KeyCode(0xE037), pressed: true),
      ])
    #expect(!connection.viewer.hasMore(within: 100))
  }

  @Test("keysyms go through the layout")
  func keysyms() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    #expect(connection.wait { $0 == .attached })
    try connection.viewer.key(0x41, true)
    try connection.viewer.key(0x41, false)
    #expect(connection.machine.wait { $0.inputs.count == 4 })
    #expect(
      connection.machine.received.inputs == [
        .key(KeyCode(0x2A), pressed: true), .key(KeyCode(0x1E), pressed: true),
        .key(KeyCode(0x1E), pressed: false), .key(KeyCode(0x2A), pressed: false),
      ])
  }

  @Test("another layout holds from the next key, and what was held is let go of")
  func layoutChange() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    #expect(connection.wait { $0 == .attached })
    try connection.viewer.key(0x79, true)
    #expect(connection.machine.wait { $0.inputs.count == 1 })
    let command = try #require(DisplayCommand(packet: Array("layout de".utf8)))
    connection.session.perform(command)
    #expect(connection.machine.wait { $0.inputs.count == 2 })
    try connection.viewer.key(0x79, true)
    try connection.viewer.key(0x79, false)
    #expect(connection.machine.wait { $0.inputs.count == 4 })
    #expect(
      connection.machine.received.inputs == [
        .key(KeyCode(0x15), pressed: true), .key(KeyCode(0x15), pressed: false),
        .key(KeyCode(0x2C), pressed: true), .key(KeyCode(0x2C), pressed: false),
      ])
  }

  @Test("the pointer spans the whole picture, and wheels turn")
  func pointer() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.pointer(0, 0, 0)
    try connection.viewer.pointer(1, 319, 199)
    try connection.viewer.pointer(8, 319, 199)
    try connection.viewer.pointer(0, 319, 199)
    #expect(connection.machine.wait { $0.inputs.count == 5 })
    #expect(
      connection.machine.received.inputs == [
        .absolutePointer(x: 0, y: 0, buttons: []),
        .absolutePointer(x: 65535, y: 65535, buttons: .left),
        .absolutePointer(x: 65535, y: 65535, buttons: []),
        .relativePointer(x: 0, y: 0, wheel: 1, horizontalWheel: 0, buttons: []),
        .absolutePointer(x: 65535, y: 65535, buttons: []),
      ])
  }

  @Test("LED state is told at once and when it changes")
  func leds() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    connection.machine.server.publish(leds: .numLock)
    try connection.viewer.setEncodings([0, -261])
    let isState = { (wanted: UInt8) in
      { (event: TestViewer.Event) -> Bool in
        if case .update(let rects) = event { return rects.contains { $0.payload == [wanted] } }
        return false
      }
    }
    _ = try connection.viewer.next(where: isState(2))
    connection.machine.server.publish(leds: [.capsLock, .scrollLock])
    _ = try connection.viewer.next(where: isState(5))
  }

  @Test("a new name is told")
  func desktopName() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -307])
    connection.machine.server.publish(name: "Zoë's desktop")
    _ = try connection.viewer.next { event in
      guard case .update(let rects) = event else { return false }
      return rects.contains {
        $0.encoding == -307 && $0.payload == Array("Zoë's desktop".utf8)
      }
    }
  }

  @Test("a bell does not ring into the handshake, and rings after it")
  func bellDuringHandshake() throws {
    let connection = try Connection(nil)
    let viewer = connection.viewer
    #expect(connection.wait { $0 == .attached })
    #expect(try viewer.read(12) == Array("RFB 003.008\n".utf8))
    connection.machine.server.ringBell()
    try viewer.send(Array("RFB 003.008\n".utf8))
    #expect(try viewer.read(2) == [1, 1])
    connection.machine.server.ringBell()
    // The picture is waited for before ServerInit.
    try viewer.send([1, 1])
    #expect(try viewer.read(4) == [0, 0, 0, 0])
    connection.machine.server.ringBell()
    connection.machine.server.publish(scanout(320, 200))
    #expect(try viewer.read(4) == [1, 64, 0, 200])
    _ = try viewer.read(29)
    connection.machine.server.ringBell()
    #expect(try viewer.next() == .bell)
  }

  @Test("messages right behind ClientInit are taken after it")
  func impatientViewer() throws {
    let connection = try Connection(nil)
    let viewer = connection.viewer
    #expect(connection.wait { $0 == .attached })
    // Shared, encodings, a fence and a request before any answer.
    try viewer.send(
      Array("RFB 003.008\n".utf8) + [1, 1, 2, 0, 0, 2, 0, 0, 0, 0] + TestViewer.big(Int32(-312)))
    try viewer.fence(0x8000_0001, [7])
    #expect(try viewer.read(12 + 2 + 4).suffix(4) == [0, 0, 0, 0])
    #expect(try viewer.read(4) == [4, 0, 3, 0])
    _ = try viewer.read(29)
    #expect(try viewer.next() == .fence(flags: 0x8000_0000, payload: []))
    #expect(try viewer.next() == .fence(flags: 1, payload: [7]))
  }

  @Test("a desktop that is left takes its pointer, lights and texts along")
  func leftDesktop() throws {
    let connection = try Connection(scanout(320, 200))
    let viewer = connection.viewer
    let image = try #require(
      CursorImage(
        width: 2, height: 2, hotX: 1, hotY: 0, pixels: [UInt8](repeating: 255, count: 16)))
    try viewer.handshake()
    try viewer.setEncodings([0, -239, -261])
    connection.machine.server.publish(leds: .capsLock)
    connection.machine.server.publish(cursor: image)
    try viewer.request(incremental: false)
    var seen: [TestViewer.Rectangle] = []
    func take(until condition: () -> Bool) throws {
      while !condition() {
        guard case .update(let rects) = try viewer.next() else { continue }
        seen += rects
        try viewer.request()
      }
    }
    try take {
      seen.contains { $0.encoding == -239 && $0.rect.width == 2 }
        && seen.last { $0.encoding == -261 }?.payload == [4]
    }
    connection.session.detach()
    try take {
      seen.last { $0.encoding == -239 }?.rect.width == 0
        && seen.last { $0.encoding == -261 }?.payload == [0]
    }
  }

  @Test("a mode change is told in the way the viewer knows", arguments: [-223, -308] as [Int32])
  func modeChange(encoding: Int32) throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, encoding])
    try connection.viewer.request(incremental: false)
    try connection.viewer.update { connection.isExact(scanout(320, 200)) }
    let larger = scanout(400, 300)
    connection.machine.paint(larger)
    connection.machine.server.publish(larger)
    try connection.viewer.update { connection.isExact(larger) }
    #expect(connection.viewer.width == 400)
  }

  @Test("the extended desktop size names one screen, not 0, of the real size")
  func extendedDesktopSize() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -308])
    try connection.viewer.request(incremental: false)
    guard case .update(let rects) = try connection.viewer.next() else {
      Issue.record("no update")
      return
    }
    let screen = try #require(rects.first { $0.encoding == -308 })
    #expect(screen.rect == Rect(x: 0, y: 0, width: 320, height: 200))
    #expect(screen.payload.count == 16)
    #expect(Array(screen.payload[0..<4]) != [0, 0, 0, 0])
    #expect(Array(screen.payload[4..<12]) == [0, 0, 0, 0, 1, 64, 0, 200])
  }

  @Test("a desktop size that is asked for is refused by a machine that keeps its own")
  func setDesktopSize() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -308])
    try connection.viewer.request(incremental: false)
    _ = try connection.viewer.next()
    let screen = TestViewer.big(UInt32(1)) + [0, 0, 0, 0, 2, 128, 1, 224] + [0, 0, 0, 0]
    try connection.viewer.send([251, 0, 2, 128, 1, 224, 1, 0] + screen)
    try connection.viewer.request()
    let event = try connection.viewer.next { event in
      guard case .update(let rects) = event else { return false }
      return rects.contains { $0.encoding == -308 && $0.rect.x == 1 }
    }
    guard case .update(let rects) = event else { return }
    #expect(rects.first?.rect.y == 1)
    #expect(connection.viewer.width == 320)
  }

  @Test("a viewer that cannot resize sees the new mode between bars, and points right")
  func letterbox() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0])
    try connection.viewer.request(incremental: false)
    try connection.viewer.update { connection.isExact(scanout(320, 200)) }
    let small = scanout(160, 100)
    connection.machine.fill(small, Rect(x: 0, y: 0, width: 160, height: 100), 0x445566)
    connection.machine.server.publish(small)
    try connection.viewer.update { connection.viewer.pixel(160, 100) == 0x445566 }
    #expect(connection.viewer.width == 320)
    #expect(connection.viewer.pixel(10, 10) == 0)
    #expect(connection.viewer.pixel(80, 50) == 0x445566)
    #expect(connection.viewer.pixel(239, 149) == 0x445566)
    #expect(connection.viewer.pixel(240, 150) == 0)
    let large = scanout(640, 800)
    connection.machine.fill(large, Rect(x: 0, y: 0, width: 640, height: 800), 0x665544)
    connection.machine.server.publish(large)
    try connection.viewer.update { connection.viewer.pixel(160, 100) == 0x665544 }
    #expect(connection.viewer.pixel(70, 100) == 0)
    try connection.viewer.pointer(0, 80 + 159, 199)
    #expect(
      connection.machine.wait {
        $0.inputs.last == .absolutePointer(x: 65535, y: 65535, buttons: [])
      })
  }

  @Test("a cursor too large to be sent is made smaller, with its hot spot")
  func largeCursor() throws {
    let connection = try Connection(scanout(320, 200))
    var pixels: [UInt8] = []
    for _ in 0..<96 {
      for x in 0..<128 { pixels += x < 64 ? [200, 100, 50, 255] : [0, 0, 0, 0] }
    }
    let image = try #require(
      CursorImage(width: 128, height: 96, hotX: 64, hotY: 95, pixels: pixels))
    connection.machine.server.publish(cursor: image)
    try connection.viewer.handshake()
    #expect(connection.wait { $0 == .attached })
    try connection.viewer.setEncodings([0, -239])
    try connection.viewer.request(incremental: false)
    var shape: TestViewer.Rectangle?
    while shape == nil {
      guard case .update(let rects) = try connection.viewer.next() else { continue }
      shape = rects.first { $0.encoding == -239 && $0.rect.width > 0 }
      try connection.viewer.request()
    }
    // A cursor's position is its hot spot.
    #expect(shape?.rect == Rect(x: 40, y: 59, width: 80, height: 60))
    let sent = shape?.payload ?? []
    #expect(Array(sent.prefix(3)) == [200, 100, 50])
    let mask = Array(sent.suffix(10 * 60))
    #expect(mask.prefix(10) == [255, 255, 255, 255, 255, 0, 0, 0, 0, 0])
  }

  @Test("a cursor's shape is sent to viewers that draw it")
  func cursor() throws {
    let connection = try Connection(scanout(320, 200))
    let image = try #require(
      CursorImage(
        width: 2, height: 2, hotX: 1, hotY: 0,
        pixels: [1, 2, 3, 255, 4, 5, 6, 255, 0, 0, 0, 0, 7, 8, 9, 255]))
    connection.machine.server.publish(cursor: image)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -239])
    try connection.viewer.request(incremental: false)
    let event = try connection.viewer.next { event in
      guard case .update(let rects) = event else { return false }
      return rects.contains { $0.encoding == -239 && $0.rect.width == 2 }
    }
    guard case .update(let rects) = event, let shape = rects.first(where: { $0.encoding == -239 })
    else { return }
    #expect(shape.rect == Rect(x: 1, y: 0, width: 2, height: 2))
    #expect(Array(shape.payload[0..<8]) == [1, 2, 3, 0, 4, 5, 6, 0])
    #expect(Array(shape.payload[16...]) == [0b1100_0000, 0b0100_0000])
  }

  @Test("a cursor is painted for viewers that do not draw it, and moves")
  func paintedCursor() throws {
    let size = scanout(320, 200)
    let connection = try Connection(size)
    let image = try #require(
      CursorImage(
        width: 1, height: 2, hotX: 0, hotY: 0, pixels: [0, 0, 255, 255, 0, 0, 255, 255]))
    connection.machine.server.publish(cursor: image)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0])
    try connection.viewer.request(incremental: false)
    try connection.viewer.pointer(0, 50, 60)
    try connection.viewer.update { connection.viewer.pixel(50, 60) == 0xFF0000 }
    try connection.viewer.pointer(0, 70, 80)
    try connection.viewer.update {
      connection.viewer.pixel(70, 80) == 0xFF0000 && connection.viewer.pixel(50, 60) == 0
    }
  }

  @Test("the bell rings")
  func bell() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    connection.machine.server.ringBell()
    #expect(try connection.viewer.next() == .bell)
  }

  @Test("power requests reach the owner")
  func power() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -309])
    #expect(try connection.viewer.next() == .xvp(code: 1))
    try connection.viewer.send([250, 0, 1, 2])
    try connection.viewer.send([250, 0, 1, 4])
    #expect(connection.wait { $0 == .power(.reset) })
    #expect(connection.events.withLock { $0.contains(.power(.shutdown)) })
    try connection.viewer.send([250, 0, 1, 77])
    #expect(try connection.viewer.next() == .xvp(code: 0))
  }

  @Test("clipboards arrive as text")
  func clipboard() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    #expect(connection.wait { $0 == .attached })
    try connection.viewer.send([6, 0, 0, 0, 0, 0, 0, 3, 0x61, 0xE9, 0x7A])
    #expect(connection.machine.wait { $0.clipboards == ["aéz"] })
  }
}
