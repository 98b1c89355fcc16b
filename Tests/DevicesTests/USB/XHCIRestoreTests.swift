import DeviceModel
import Devices
import Testing

@Suite("xHCI, saved and restored")
struct XHCIRestoreTests {
  let bench = XHCIBench()

  @Test("a driver goes on with a restored controller, whatever it was in the middle of")
  func midFlight() {
    bench.bringUp(segments: [16, 16])
    let tablet = bench.enumerate(port: 1)
    let keyboard = bench.enumerate(port: 2)
    let waiting = bench.arm(tablet)
    bench.key(0x1E, true)
    // A control transfer of which only the first stage was written.
    bench.ring(tablet, 1).put(0x0012_0000_0100_0680, status: 8, TRBKind.setup, TRBFlag.immediate)
    bench.doorbell(tablet, 1)
    var copy = XHCIBench(restoring: bench)
    for _ in 0..<3 { copy = XHCIBench(restoring: copy) }
    #expect(copy.controller.failure == nil)
    copy.point(0x8000, 0x4000, [.middle])
    #expect(copy.takeEvents().map(\.parameter) == [waiting])
    #expect(copy.bytes(5) == [4, 0, 0x40, 0, 0x20])
    copy.arm(keyboard)
    #expect(copy.takeEvents().count == 1 && copy.bytes(3) == [0, 0, 4])
    let ring = copy.ring(tablet, 1)
    ring.put(XHCIBench.buffer, status: 18, TRBKind.data, TRBFlag.directionIn)
    ring.put(0, TRBKind.status, TRBFlag.completion)
    copy.doorbell(tablet, 1)
    #expect(copy.takeEvents().map(\.code) == [1] && copy.bytes(2) == [18, 1])
    for turn in 0..<60 as Range<UInt16> {
      copy.arm(tablet)
      copy.point(turn << 2, 0)
      #expect(copy.takeEvents().count == 1)
      if turn % 7 == 0 { copy = XHCIBench(restoring: copy) }
    }
  }

  @Test("an idle rate and work that waits for its time go on")
  func timers() {
    bench.bringUp()
    let slot = bench.enumerate(port: 2)
    #expect(bench.request(slot, 0x21, 10, value: 0x0A00).code == 1)
    let copy = XHCIBench(restoring: bench)
    copy.arm(slot)
    copy.clock.advance(milliseconds: 39)
    #expect(copy.takeEvents().isEmpty)
    copy.clock.advance(milliseconds: 1)
    #expect(copy.takeEvents().count == 1)
  }

  @Test("a reset of the machine unplugs nothing and forgets the rest")
  func power() {
    bench.bringUp()
    _ = bench.enumerate(port: 1)
    bench.controller.reset()
    #expect(bench.isHalted && bench.port(1) == 0x2_0EE1)
    #expect(bench.controller.function.command == 0)
    #expect(!bench.tablet.accepts(.absolutePointer(x: 0, y: 0, buttons: [])))
  }
}

@Suite struct XHCIFuzzingTests {
  @Test("whatever a guest does to the USB controller, a reset brings it back", arguments: 0..<16)
  func random(seed: UInt64) {
    var generator = SeededGenerator(seed: seed &+ 1100)
    for _ in 0..<40 {
      let program = (0..<Int.random(in: 1...600, using: &generator)).map { _ in
        UInt8.random(in: 0...255, using: &generator)
      }
      #expect(XHCIFuzzing.run(program))
    }
  }
}
