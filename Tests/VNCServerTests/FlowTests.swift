import DeviceModel
import Display
import LinuxSystem
import Testing
import VNCServer

@Suite("Fences and continuous updates on the wire", .timeLimit(.minutes(4)))
struct FlowTests {
  @Test("a viewer's fence is answered in turn, with the flags that are known")
  func fences() throws {
    let connection = try Connection(scanout(320, 200))
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -312])
    #expect(try connection.viewer.next() == .fence(flags: 0x8000_0000, payload: []))
    try connection.viewer.fence(0x8000_0000 | 0x10 | 7, [1, 2, 3])
    #expect(try connection.viewer.next() == .fence(flags: 7, payload: [1, 2, 3]))
    try connection.viewer.fence(0x8000_0001, [UInt8](repeating: 9, count: 64))
    #expect(
      try connection.viewer.next() == .fence(flags: 1, payload: [UInt8](repeating: 9, count: 64)))
  }

  @Test("continuous updates come unasked, and their end is acknowledged")
  func continuousUpdates() throws {
    let size = scanout(320, 200)
    let connection = try Connection(size)
    connection.machine.paint(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -313])
    #expect(try connection.viewer.next() == .endOfContinuousUpdates)
    try connection.viewer.request(incremental: false)
    try connection.viewer.continuousUpdates(true)
    while !connection.isExact(size) { _ = try connection.viewer.next() }
    for round in 0..<5 {
      connection.machine.fill(
        size, Rect(x: round * 20, y: 20, width: 10, height: 10), 0x10000 * UInt32(round + 1))
      while !connection.isExact(size) { _ = try connection.viewer.next() }
    }
    try connection.viewer.continuousUpdates(false)
    _ = try connection.viewer.next { $0 == .endOfContinuousUpdates }
    connection.machine.fill(size, Rect(x: 0, y: 0, width: 10, height: 10), 0x123456)
    #expect(!connection.viewer.hasMore(within: 300))
  }

  @Test("while updates are continuous, incremental requests are ignored and others honoured")
  func requestsDuringContinuousUpdates() throws {
    let size = scanout(320, 200)
    let connection = try Connection(size)
    let viewer = connection.viewer
    connection.machine.paint(size)
    try viewer.handshake()
    try viewer.setEncodings([0, -313])
    #expect(try viewer.next() == .endOfContinuousUpdates)
    // All of it is wanted, and then only a corner continuously.
    try viewer.request(incremental: false)
    try viewer.continuousUpdates(true, Rect(x: 0, y: 0, width: 64, height: 64))
    while !connection.isExact(size) { _ = try viewer.next() }
    try viewer.request()
    connection.machine.fill(size, Rect(x: 192, y: 128, width: 8, height: 8), 0x777777)
    #expect(!viewer.hasMore(within: 300))
    connection.machine.fill(size, Rect(x: 8, y: 8, width: 8, height: 8), 0x888888)
    while viewer.pixel(9, 9) != 0x888888 { _ = try viewer.next() }
    #expect(viewer.pixel(193, 129) != 0x777777)
    try viewer.request(incremental: false, Rect(x: 192, y: 128, width: 64, height: 64))
    while viewer.pixel(193, 129) != 0x777777 { _ = try viewer.next() }
    #expect(connection.isExact(size))
  }

  /// Passes once the session has seen whatever was sent to it before.
  private func synchronise(_ viewer: TestViewer) throws {
    // The second fence is answered in a round of the session after the one that saw the rest.
    for round in [1, 2] as [UInt8] {
      try viewer.fence(0x8000_0000, [round])
      _ = try viewer.next { $0 == .fence(flags: 0, payload: [round]) }
    }
  }

  /// Has the session take `early` while its viewer is busy, then the guest draw `later`, of
  /// which nobody is told, and the viewer ask for an update only then.
  private func ask(freshness: UInt64, early: UInt32, later: UInt32) throws -> TestViewer {
    let size = scanout(320, 200)
    let connection = try Connection(size, freshness: freshness)
    let (machine, viewer) = (connection.machine, connection.viewer)
    let area = Rect(x: 64, y: 32, width: 64, height: 16)
    try viewer.handshake()
    try viewer.setEncodings([0])
    while !machine.server.wantsDamage {
      try viewer.request()
      try synchronise(viewer)
    }
    try viewer.request()
    try synchronise(viewer)
    // With the answer to that on its way, the session asks for what comes after it.
    machine.fill(size, area, 0xABCDEF)
    while viewer.pixel(70, 33) != 0xABCDEF { _ = try viewer.next() }
    while !machine.server.wantsDamage { try synchronise(viewer) }
    machine.fill(size, area, early)
    try synchronise(viewer)
    for x in 64..<128 { machine.set(size, x: x, y: 40, later) }
    try viewer.request()
    _ = try viewer.next { if case .update = $0 { true } else { false } }
    #expect(viewer.pixel(70, 33) == early)
    return viewer
  }

  @Test("a busy viewer gets the picture as it was when it was whole")
  func wholePictures() throws {
    let viewer = try ask(freshness: 60_000_000_000, early: 0x112233, later: 0x445566)
    #expect(viewer.pixel(70, 40) == 0x112233)
  }

  @Test("a viewer that was busy for long gets the picture of now")
  func stalePictures() throws {
    let viewer = try ask(freshness: 0, early: 0x112233, later: 0x445566)
    #expect(viewer.pixel(70, 40) == 0x445566)
  }

  @Test("with fences, an update waits for the answer to the last")
  func fencePacing() throws {
    let size = scanout(640, 480)
    let connection = try Connection(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -312, -313])
    try connection.viewer.request(incremental: false)
    try connection.viewer.continuousUpdates(true)
    let isFence = { (event: TestViewer.Event) in
      if case .fence(_, let payload) = event { payload.count == 4 } else { false }
    }
    let fence = try connection.viewer.next(where: isFence)
    // The first picture is larger than the window: nothing more until it is read.
    connection.machine.paint(size, seed: 5)
    #expect(!connection.viewer.hasMore(within: 300))
    guard case .fence(_, let payload) = fence else { return }
    try connection.viewer.fence(0, payload)
    while !connection.isExact(size) {
      let event = try connection.viewer.next()
      if case .fence(let flags, let payload) = event, flags & 0x8000_0000 != 0 {
        try connection.viewer.fence(0, payload)
      }
    }
  }
}
