import DeviceModel
import Display
import Glibc
import LinuxSystem
import Testing
import VNCServer

@Suite("A viewer behind 1 Mbit/s", .timeLimit(.minutes(1)))
struct SlowLinkTests {
  /// Takes what the server sends at 1 Mbit/s, asks for more as a viewer does, and
  /// throws it away.
  private func drain(_ viewer: FileDescriptor, until stop: Guarded<Bool>) {
    let request: [UInt8] =
      [3, 1] + [0, 0, 1024, 768].flatMap { TestViewer.big(UInt16($0)) }
    while !stop.withLock({ $0 }) {
      pause(milliseconds: 10)
      guard TestViewer(viewer).hasMore(within: 0) else { continue }
      _ = try? viewer.read(upTo: 1250)
      _ = try? viewer.write(request)
    }
  }

  @Test("keys reach the guest within 50 ms at p99 while the whole screen changes")
  func keyLatency() throws {
    let size = scanout(1024, 768)
    let connection = try Connection(size)
    connection.machine.paint(size)
    try connection.viewer.handshake()
    try connection.viewer.setEncodings([0, -258])
    #expect(connection.wait { $0 == .attached })
    try connection.viewer.request(incremental: false)
    let stop = Guarded(false)
    let viewer = connection.viewer.descriptor
    let machine = connection.machine
    let reader = try Thread(name: "slow reader") {
      drain(viewer, until: stop)
    }
    let painter = try Thread(name: "painter") {
      var seed: UInt32 = 0
      while !stop.withLock({ $0 }) {
        seed += 1
        if let base = machine.memory.bytes.baseAddress {
          memset(base, Int32(seed & 255), 1024 * 768 * 4)
        }
        machine.server.publish(damage: Region(Rect(x: 0, y: 0, width: 1024, height: 768)))
        pause(milliseconds: 16)
      }
    }
    defer {
      stop.withLock { $0 = true }
      reader.join()
      painter.join()
    }
    var latencies: [UInt64] = []
    for round in 1...200 {
      let start = MonotonicClock.now
      try connection.viewer.extendedKey(0x1E, round % 2 == 1)
      #expect(machine.wait { $0.inputs.count >= round })
      latencies.append(MonotonicClock.now - start)
      pause(milliseconds: 10)
    }
    let p99 = latencies.sorted()[197]
    #expect(p99 < 50_000_000, "\(p99 / 1000) µs")
    #expect(!connection.events.withLock { $0.contains(.closed("the viewer stopped reading")) })
  }
}
