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
