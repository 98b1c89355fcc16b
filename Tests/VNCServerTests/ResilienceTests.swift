import DeviceModel
import Display
import Glibc
import LinuxSystem
import TestSupport
import Testing
import VNCServer

@Suite("Viewers that behave badly, VMMs that go", .timeLimit(.minutes(4)), .serialized)
struct ResilienceTests {
  @Test("a key reaches the guest while the viewer takes no picture")
  func inputDuringBlockedOutput() throws {
    let size = scanout(1024, 768)
    let connection = try Connection(size)
    connection.machine.paint(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -258])
    try connection.viewer.request(incremental: false)
    // The update is larger than any socket buffer, and nobody reads it.
    #expect(connection.viewer.hasMore(within: 2000))
    let start = MonotonicClock.now
    try connection.viewer.extendedKey(0x1E, true)
    #expect(connection.machine.wait { !$0.inputs.isEmpty })
    #expect(MonotonicClock.now - start < 500_000_000)
  }

  @Test("a viewer that stops reading is shed in two seconds, and no sooner")
  func shedding() throws {
    let size = scanout(1024, 768)
    let connection = try Connection(size)
    connection.machine.paint(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0])
    try connection.viewer.request(incremental: false)
    #expect(connection.viewer.hasMore(within: 2000))
    let start = MonotonicClock.now
    #expect(connection.wait { $0 == .closed("the viewer stopped reading") })
    let time = MonotonicClock.now - start
    #expect(time > 1_000_000_000)
    #expect(time < 8_000_000_000)
  }

  @Test("a viewer that reads slowly is kept")
  func slowReader() throws {
    let size = scanout(640, 480)
    let connection = try Connection(size)
    connection.machine.paint(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0])
    try connection.viewer.request(incremental: false)
    // 1.2 MB in about 4 s: slower than the patience for a standstill.
    let until = MonotonicClock.now + 4_000_000_000
    while MonotonicClock.now < until {
      _ = try connection.viewer.read(30_000)
      pause(milliseconds: 100)
    }
    #expect(
      !connection.events.withLock { events in
        events.contains { if case .closed = $0 { true } else { false } }
      })
  }

  @Test(
    "what no viewer says closes the connection",
    arguments: [
      [7, 0, 0, 0], [11, 0, 0, 0, 0, 0, 0, 1], [77], [255, 9, 0, 0],
      [0, 0, 0, 0, 24, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0],
      [248, 0, 0, 0, 0, 0, 0, 0, 65],
    ] as [[UInt8]])
  func refusedMessages(bytes: [UInt8]) throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.send(bytes)
    #expect(connection.viewer.isClosed(within: 3000))
  }

  @Test("what cannot be offered is passed over, and the session goes on")
  func ignoredMessages() throws {
    let connection = try Connection(scanout(320, 200))
    connection.machine.paint(scanout(320, 200))
    try connection.viewer.handshake()
    // Scale by two, server input off, single window, a clipboard of 3 MB.
    try connection.viewer.send([8, 2, 0, 0, 15, 2, 0, 0, 9, 1, 0, 0, 10, 0, 0, 9, 0, 9])
    try connection.viewer.send([6, 0, 0, 0, 0, 0x30, 0, 0])
    try connection.viewer.send([UInt8](repeating: 0x41, count: 0x300000))
    try connection.viewer.setEncodings((0..<5000).map { Int32($0) + 1000 } + [0])
    try connection.viewer.request(incremental: false)
    try connection.viewer.update { connection.isExact(scanout(320, 200)) }
    #expect(connection.machine.received.clipboards.isEmpty)
  }

  @Test("clipboards that nobody has time for end the session before they fill memory")
  func clipboardFlood() throws {
    let size = scanout(1024, 768)
    let connection = try Connection(size)
    connection.machine.paint(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0])
    try connection.viewer.request(incremental: false)
    // The encoder waits for room to write.
    #expect(connection.viewer.hasMore(within: 2000))
    let text = [6, 0, 0, 0, 0, 1, 0, 0] + [UInt8](repeating: 0x41, count: 65536)
    var sent = 0
    while sent < 100, (try? connection.viewer.send(text)) != nil { sent += 1 }
    #expect(sent >= 64 && sent < 100)
    #expect(
      connection.wait { $0 == .closed("the viewer sends faster than it can be served") }
        || connection.wait { $0 == .closed("the viewer stopped reading") },
      "\(connection.events.withLock { $0 })")
  }

  @Test("a hang-up at any point of the handshake ends the session", arguments: [0, 5, 12, 13, 14])
  func earlyHangUp(after count: Int) throws {
    let connection = try Connection(scanout(320, 200))
    let bytes = Array("RFB 003.008\n".utf8) + [1, 1]
    try connection.viewer.send(Array(bytes[..<count]))
    shutdown(connection.viewer.descriptor.raw, Int32(SHUT_WR))
    #expect(connection.wait { if case .closed = $0 { true } else { false } })
  }

  @Test("garbage instead of a handshake ends the session", arguments: 0..<5)
  func garbage(seed: Int) throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.send((0..<200).map { UInt8(($0 * 7 + seed * 31) & 255) })
    #expect(connection.viewer.isClosed(within: 3000))
  }

  @Test("the viewer outlives the machine and shows the next one")
  func machineReplaced() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path("desk.display")
    let size = scanout(320, 200)
    let connection = try Connection(nil, attached: false)
    connection.session.attach(path: path)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -223])
    try connection.viewer.request(incremental: false)
    // Nothing there yet: a status screen.
    _ = try connection.viewer.next()
    #expect(connection.viewer.width == 1024)
    for round in 1...2 {
      let machine = try FakeMachine(path: path)
      machine.fill(size, Rect(x: 0, y: 0, width: 320, height: 200), 0x1000 * UInt32(round))
      machine.server.publish(size)
      let viewer = connection.viewer
      try viewer.update { viewer.width == 320 && viewer.pixel(7, 7) == 0x1000 * UInt32(round) }
    }
    #expect(connection.wait { $0 == .waiting })
    // The status screen comes back in the last picture's size.
    try connection.viewer.update { connection.viewer.pixel(7, 7) != 0x2000 }
    #expect(connection.viewer.width == 320)
  }

  @Test("keys that are down are let go when the viewer leaves")
  func heldKeys() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    #expect(connection.wait { $0 == .attached })
    try connection.viewer.extendedKey(0x2A, true)
    #expect(connection.machine.wait { $0.inputs.count == 1 })
    shutdown(connection.viewer.descriptor.raw, Int32(SHUT_RDWR))
    #expect(connection.machine.wait { $0.inputs.last == .key(KeyCode(0x2A), pressed: false) })
  }

  @Test("an end is shown before the connection closes, which is after a while")
  func end() throws {
    let connection = try Connection(scanout(320, 200), farewell: 500_000_000...1_500_000_000)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0])
    try connection.viewer.request(incremental: false)
    connection.machine.fill(scanout(320, 200), Rect(x: 0, y: 0, width: 320, height: 200), 0xFF)
    try connection.viewer.update { connection.viewer.pixel(5, 5) == 0xFF }
    connection.session.end("Signed in elsewhere")
    try connection.viewer.update { connection.viewer.pixel(5, 5) != 0xFF }
    #expect(connection.viewer.isClosed(within: 4000))
    #expect(connection.wait { $0 == .closed("Signed in elsewhere") })
  }

  @Test(
    "an end is shown until somebody presses a key or a button, but for what was typed before",
    arguments: ["key", "extended key", "button"])
  func dismissed(what: String) throws {
    let (least, most): (UInt64, UInt64) = (700_000_000, 600_000_000_000)
    let connection = try Connection(scanout(320, 200), farewell: least...most)
    let viewer = connection.viewer
    try viewer.handshake()
    try viewer.setEncodings([0])
    let begin = MonotonicClock.now
    connection.session.end("You may not use any pool.")
    func press(_ pressed: Bool) throws {
      switch what {
      case "key": try viewer.key(0x20, pressed)
      case "extended key": try viewer.extendedKey(0x39, pressed)
      default: try viewer.pointer(pressed ? 1 : 0, 9, 9)
      }
    }
    // Somebody who types on is not done reading.
    try press(true)
    try press(false)
    #expect(!viewer.isClosed(within: 1500))
    // A key that is let go of was pressed before, and a pointer that moves says nothing.
    try viewer.key(0x41, false)
    try viewer.pointer(0, 50, 50)
    #expect(!viewer.isClosed(within: 200))
    try press(true)
    #expect(viewer.isClosed(within: 10_000))
    #expect(MonotonicClock.now - begin > least)
    #expect(connection.wait { $0 == .closed("You may not use any pool.") })
  }
}
