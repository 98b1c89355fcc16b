import DeviceModel
import Display
import Glibc
import LinuxSystem
import Testing
import VNCServer

@Suite("Viewers that stop reading", .timeLimit(.minutes(4)), .serialized)
struct SheddingTests {
  private static let fence: Int32 = -312

  /// A viewer that has its picture; `machine` changes little at a time from now on.
  private func viewer(_ size: Scanout, _ encodings: [Int32]) throws -> Connection {
    let connection = try Connection(size)
    connection.machine.paint(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings(encodings)
    #expect(connection.wait { $0 == .attached })
    return connection
  }

  /// Changes a corner of the picture until told to stop.
  private func flicker(_ machine: FakeMachine, _ size: Scanout, until stop: Guarded<Bool>) throws
    -> Thread
  {
    try Thread(name: "painter") {
      var value: UInt32 = 0
      while !stop.withLock({ $0 }) {
        value += 1
        machine.fill(size, Rect(x: 0, y: 0, width: 4, height: 4), value)
        pause(milliseconds: 20)
      }
    }
  }

  private func isStalled(_ connection: Connection) -> Bool {
    connection.events.withLock { $0.contains(.closed("the viewer stopped reading")) }
  }

  @Test("one that answers no fence is shed, although kernels take all its small updates")
  func unansweredFence() throws {
    let size = scanout(64, 64)
    let connection = try viewer(size, [0, Self.fence, -313])
    try connection.viewer.continuousUpdates(true)
    let stop = Guarded(false)
    let painter = try flicker(connection.machine, size, until: stop)
    defer {
      stop.withLock { $0 = true }
      painter.join()
    }
    let start = MonotonicClock.now
    #expect(connection.wait { $0 == .closed("the viewer stopped reading") })
    let time = MonotonicClock.now - start
    #expect(time > 1_000_000_000)
    #expect(time < 8_000_000_000)
  }

  @Test("one whose socket is full between updates is shed")
  func fullBetweenUpdates() throws {
    let size = scanout(64, 64)
    let connection = try viewer(size, [0])
    let stop = Guarded(false)
    let painter = try flicker(connection.machine, size, until: stop)
    defer {
      stop.withLock { $0 = true }
      painter.join()
    }
    // Asks on and on for everything, and reads none of it; never enough to block.
    let deadline = MonotonicClock.now + 20_000_000_000
    while !isStalled(connection) && MonotonicClock.now < deadline {
      try? connection.viewer.request(incremental: false)
      pause(milliseconds: 10)
    }
    #expect(isStalled(connection))
  }

  @Test("one that answers fences in its own time is kept")
  func slowAnswers() throws {
    let size = scanout(64, 64)
    let connection = try viewer(size, [0, Self.fence, -313])
    try connection.viewer.continuousUpdates(true)
    let stop = Guarded(false)
    let painter = try flicker(connection.machine, size, until: stop)
    defer {
      stop.withLock { $0 = true }
      painter.join()
    }
    let end = MonotonicClock.now + 4_000_000_000
    while MonotonicClock.now < end {
      if case .fence(let flags, let payload) = try connection.viewer.next(),
        flags & 0x8000_0000 != 0
      {
        pause(milliseconds: 700)
        try connection.viewer.fence(flags & 0xFF, payload)
      }
    }
    #expect(!isStalled(connection))
  }

  @Test("one behind a relay that takes everything gets the time that its link needs")
  func hiddenQueue() throws {
    // 600 KB at the assumed 1 Mbit/s are nearly 5 s.
    let size = scanout(500, 300)
    let connection = try viewer(size, [0, Self.fence])
    try connection.viewer.request(incremental: false)
    let answer = try connection.viewer.next {
      if case .fence(_, let payload) = $0 { payload.count == 4 } else { false }
    }
    guard case .fence(let flags, let payload) = answer else { return }
    pause(milliseconds: 4500)
    try connection.viewer.fence(flags & 0xFF, payload)
    connection.machine.fill(size, Rect(x: 0, y: 0, width: 9, height: 9), 0x1234)
    try connection.viewer.update { connection.viewer.pixel(3, 3) == 0x1234 }
    #expect(!isStalled(connection))
  }

  @Test("an update that goes without fences from now on waits for no answer")
  func fencesDropped() throws {
    let size = scanout(200, 200)
    let connection = try viewer(size, [0, Self.fence])
    // More than the window: nothing else may start until it is answered.
    try connection.viewer.request(incremental: false)
    _ = try connection.viewer.next {
      if case .fence(_, let payload) = $0 { payload.count == 4 } else { false }
    }
    try connection.viewer.setEncodings([0])
    connection.machine.fill(size, Rect(x: 0, y: 0, width: 9, height: 9), 0x4321)
    try connection.viewer.update { connection.viewer.pixel(3, 3) == 0x4321 }
    pause(milliseconds: 2500)
    #expect(!isStalled(connection))
  }

  @Test("the time that bytes under way may take follows the path")
  func deliveryTime() {
    var pacer = UpdatePacer()
    #expect(pacer.deliveryTime == 0)
    let first = pacer.sent(bytes: 125_000, now: 0)
    #expect(pacer.deliveryTime == 1_000_000_000)
    pacer.answered(first, now: 10_000_000)
    let second = pacer.sent(bytes: 125_000, now: 0)
    #expect(pacer.deliveryTime == 10_000_000)
    pacer.answered(second, now: 4_000_000_000)
    _ = pacer.sent(bytes: 125_000, now: 0)
    #expect(pacer.deliveryTime > 13_000_000)
    for _ in 0..<100 { _ = pacer.sent(bytes: .max / 1000, now: 0) }
    #expect(pacer.waitingSince == 0)
    pacer.forget()
    #expect(pacer.allowsUpdate && pacer.deliveryTime == 0 && pacer.waitingSince == nil)
  }
}
