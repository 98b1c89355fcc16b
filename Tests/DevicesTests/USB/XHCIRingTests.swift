import DeviceModel
import Devices
import Testing

@Suite("xHCI rings")
struct XHCIRingTests {
  let bench = XHCIBench()

  @Test("rings go round: commands, transfers and events over several segments")
  func wraps() {
    bench.bringUp(segments: [16, 17, 20])
    let slot = bench.enumerate(port: 1)
    for turn in 1...200 as ClosedRange<UInt16> {
      bench.arm(slot)
      bench.point(turn << 4, turn << 3)
      let events = bench.takeEvents()
      #expect(events.map(\.kind) == [32] && events.first?.slot == slot)
      #expect(
        bench.bytes(5)[1...2].elementsEqual([
          UInt8(truncatingIfNeeded: turn << 3), UInt8(turn >> 5),
        ]))
      #expect(bench.command(23).code == 1)
      if turn % 10 == 0 {
        #expect(bench.request(slot, 0x80, 6, value: 0x0100, length: 18).bytes.first == 18)
      }
    }
    #expect(bench.controller.failure == nil)
  }

  @Test("a transfer's buffers may be many, chained over the ring's link")
  func chains() {
    bench.bringUp()
    let slot = bench.enumerate(port: 1)
    for turn in 0..<10 as Range<UInt16> {
      let ring = bench.ring(slot, 3)
      for part in 0..<3 as Range<UInt64> {
        ring.put(
          XHCIBench.buffer + part * 0x100, status: 2, TRBKind.normal,
          TRBFlag.chain | TRBFlag.shortPacket)
      }
      let last = ring.put(
        XHCIBench.buffer + 0x300, status: 4, TRBKind.normal,
        TRBFlag.completion | TRBFlag.shortPacket)
      bench.doorbell(slot, 3)
      bench.point(0x1111 * (turn + 1), 0x8642, [.left])
      let events = bench.takeEvents()
      #expect(events.map(\.code) == [13] && events.first?.parameter == last)
      #expect(events.first?.length == 3)
      #expect(bench.bytes(2, at: XHCIBench.buffer)[0] == 1)
      #expect(bench.bytes(2, at: XHCIBench.buffer + 0x100)[1] == 0x21)
      #expect(bench.bytes(2, at: XHCIBench.buffer + 0x200)[0] == 0x43)
    }
  }

  @Test("Event Data tells how much was moved, in the driver's own words")
  func eventData() {
    bench.bringUp()
    let slot = bench.enumerate(port: 1)
    let ring = bench.ring(slot, 3)
    ring.put(XHCIBench.buffer, status: 64, TRBKind.normal, TRBFlag.chain)
    ring.put(0x1234_5678_9ABC_DEF0, TRBKind.eventData, TRBFlag.completion)
    bench.doorbell(slot, 3)
    bench.point(2, 2)
    let events = bench.takeEvents()
    #expect(events.count == 1 && events.first?.parameter == 0x1234_5678_9ABC_DEF0)
    #expect(events.first?.isEventData == true && events.first?.length == 7)
    #expect(events.first?.code == 13)
    ring.put(0, TRBKind.noOp, TRBFlag.completion)
    bench.doorbell(slot, 3)
    #expect(bench.takeEvents().map(\.code) == [1])
  }

  @Test("packets as long as the endpoint's go on in the same buffer")
  func fullPackets() {
    bench.bringUp()
    let slot = bench.enumerate(port: 2)
    bench.arm(slot, count: 16)
    bench.key(0x1E, true)
    #expect(bench.takeEvents().isEmpty, "half of it is there")
    let copy = XHCIBench(restoring: bench)
    copy.key(0x1E, false)
    #expect(copy.takeEvents().map(\.code) == [1])
    #expect(copy.bytes(16) == [0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
  }

  @Test("a stopped endpoint tells of the transfer that waits, and goes on or elsewhere")
  func stopping() {
    bench.bringUp()
    let slot = bench.enumerate(port: 1)
    let waiting = bench.arm(slot)
    let address = bench.commands.place
    _ = bench.commands.put(0, 15, UInt32(slot) << 24 | 3 << 16)
    bench.write(0x2000, 0)
    let events = bench.takeEvents()
    #expect(events.map(\.code) == [26, 1] && events.first?.parameter == waiting)
    #expect(events.first?.length == 8 && events.last?.parameter == address)
    let context = bench.words(4, at: bench.context(slot) + 0x60)
    #expect(context[0] & 7 == 3 && context[2] == UInt32(waiting) | 1)
    #expect(!bench.tablet.accepts(.absolutePointer(x: 9, y: 9, buttons: [])))
    bench.doorbell(slot, 3)
    bench.point(2, 2)
    #expect(bench.takeEvents().first?.parameter == waiting)
    #expect(bench.command(16, slot: slot, endpoint: 3, 0x1_0001).code == 19, "it runs")
    #expect(bench.command(15, slot: slot, endpoint: 3).code == 1)
    #expect(bench.command(16, slot: slot, endpoint: 3, 0x1_0001).code == 1)
    bench.putTRB(XHCIBench.buffer, 8, 1 << 10 | TRBFlag.completion | 1, at: 0x1_0000)
    bench.doorbell(slot, 3)
    bench.point(4, 4)
    #expect(bench.takeEvents().first?.parameter == 0x1_0000)
    #expect(bench.command(15, slot: slot, endpoint: 5).code == 12)
  }

  @Test("a full event ring says so, loses nothing, and holds work up until there is room")
  func fullEvents() {
    bench.bringUp(segments: [16])
    _ = bench.takeEvents()
    for _ in 0..<14 { bench.commands.put(0, 23) }
    bench.write(0x2000, 0)
    #expect(bench.takeEvents(acknowledge: false).count == 14)
    for _ in 0..<9 { bench.commands.put(0, 23) }
    bench.write(0x2000, 0)
    #expect(bench.takeEvents(acknowledge: false).map(\.kind) == [37], "one place is kept for this")
    bench.acknowledgeEvents()
    let rest = bench.takeEvents()
    #expect(rest.map(\.kind) == Array(repeating: 33, count: 9))
    #expect(rest.allSatisfy { $0.code == 1 })
    #expect(bench.command(23).code == 1)
  }

  @Test("port changes are not lost while the event ring is full, nor kept twice")
  func fullOfPorts() {
    bench.bringUp(segments: [16])
    for _ in 0..<100 {
      bench.setPort(1, 0x10)
      bench.setPort(1, 1 << 21)
    }
    var events: [DriverEvent] = []
    for _ in 0..<8 { events += bench.takeEvents() }
    #expect(events.filter { $0.kind == 34 }.count <= 17 && events.last?.parameter == 1 << 24)
    #expect(bench.takeEvents().isEmpty)
  }

  // MARK: Hostile drivers

  @Test("links that lead to themselves break the controller or the endpoint, and no more")
  func selfLinks() {
    bench.bringUp()
    let slot = bench.enumerate(port: 1)
    let place = bench.ring(slot, 3).place
    bench.putTRB(place, 0, TRBKind.link << 10 | bench.ring(slot, 3).cycle, at: place)
    bench.doorbell(slot, 3)
    #expect(bench.takeEvents().map(\.code) == [5])
    #expect(bench.words(1, at: bench.context(slot) + 0x60)[0] & 7 == 4)
    #expect(!bench.hasSystemError)
    let command = bench.commands.place
    bench.putTRB(command, 0, TRBKind.link << 10 | bench.commands.cycle, at: command)
    bench.write(0x2000, 0)
    #expect(bench.hasSystemError && bench.isHalted && bench.log.count == 1)
    bench.bringUp()
    #expect(bench.enumerate(port: 1) == 1, "a reset brings it back")
  }

  @Test("a ring without end is served piece by piece, in time")
  func endlessTransfers() {
    bench.bringUp(segments: [64])
    let slot = bench.enumerate(port: 1)
    // Two No Ops without events, and back: it never ends.
    let cycle = bench.ring(slot, 3).cycle
    let place = bench.ring(slot, 3).place
    bench.putTRB(0, 0, TRBKind.noOp << 10 | cycle, at: place)
    bench.putTRB(0, 0, TRBKind.noOp << 10 | cycle, at: place + 16)
    bench.putTRB(place, 0, TRBKind.link << 10 | cycle, at: place + 32)
    bench.doorbell(slot, 3)
    let deadline = bench.clock.nextDeadline
    #expect(deadline == bench.clock.now + 1_000_000)
    bench.clock.advance(milliseconds: 50)
    #expect(bench.command(23).code == 0, "work waits for the next frame")
    bench.clock.advance(milliseconds: 1)
    #expect(bench.takeEvents().map(\.kind) == [33])
    #expect(bench.command(15, slot: slot, endpoint: 3).code == 0)
    bench.clock.advance(milliseconds: 1)
    #expect(bench.takeEvents().map(\.code) == [27, 1])
    bench.clock.advance(milliseconds: 1)
    #expect(bench.clock.nextDeadline == nil, "nothing is left to do")
  }

  @Test("a chain without end, or of nonsense, stops its endpoint", arguments: 0..<5)
  func badTransfers(kind: Int) {
    bench.bringUp()
    let slot = bench.enumerate(port: 1)
    let cycle = bench.ring(slot, 3).cycle
    let place: UInt64 = kind == 0 ? 0x6_0000 : bench.ring(slot, 3).place
    switch kind {
    case 0:
      #expect(bench.command(15, slot: slot, endpoint: 3).code == 1)
      #expect(bench.command(16, slot: slot, endpoint: 3, place | 1).code == 1)
      for index in 0..<600 as Range<UInt64> {
        bench.putTRB(XHCIBench.buffer, 8, 1 << 10 | TRBFlag.chain | 1, at: place + index * 16)
      }
    case 1: bench.putTRB(0, 8, TRBKind.setup << 10 | TRBFlag.immediate | cycle, at: place)
    case 2: bench.putTRB(XHCIBench.buffer, 0x1_FFFF, TRBKind.normal << 10 | cycle, at: place)
    case 3: bench.putTRB(0, 0, 63 << 10 | cycle, at: place)
    default:
      bench.putTRB(XHCIBench.buffer, 1, TRBKind.normal << 10 | TRBFlag.chain | cycle, at: place)
      bench.putTRB(0, 0, TRBKind.status << 10 | cycle, at: place + 16)
    }
    bench.doorbell(slot, 3)
    bench.point(2, 2)
    #expect(bench.takeEvents().filter { $0.kind == 32 }.map(\.code) == [5])
    #expect(bench.words(1, at: bench.context(slot) + 0x60)[0] & 7 == 4)
    #expect(bench.command(14, slot: slot, endpoint: 3).code == 19, "it is not halted")
    let ring = bench.ring(slot, 3)
    #expect(bench.command(16, slot: slot, endpoint: 3, ring.word).code == 1)
    bench.arm(slot)
    bench.point(4, 4)
    #expect(bench.takeEvents().first?.code == 13)
  }

  @Test("memory that there is not halts the controller until a reset", arguments: 0..<6)
  func badMemory(kind: Int) {
    bench.bringUp()
    let slot = bench.enumerate(port: 1)
    let nowhere: UInt64 = kind % 2 == 0 ? 0x1000_0000 : .max - 15
    switch kind {
    case 0, 1:
      bench.ring(slot, 3).put(nowhere, status: 8, TRBKind.normal)
      bench.doorbell(slot, 3)
      bench.point(2, 2)
    case 2: bench.commands.put(nowhere, 11, UInt32(bench.command(9).slot) << 24)
    case 3: bench.commands.put(nowhere, 12, UInt32(slot) << 24)
    case 4:
      #expect(bench.command(15, slot: slot, endpoint: 3).code == 1)
      #expect(bench.command(16, slot: slot, endpoint: 3, nowhere | 1).code == 1)
      bench.doorbell(slot, 3)
    default:
      bench.write64(0x1030, nowhere)
      bench.commands.put(0, 23)
    }
    bench.write(0x2000, 0)
    #expect(bench.hasSystemError && bench.isHalted && bench.log.count == 1)
    #expect(bench.controller.failure != nil)
    bench.write(0x40, 5)
    #expect(bench.isHalted, "only a reset helps")
    bench.bringUp()
    #expect(bench.controller.failure == nil && bench.enumerate(port: 2) == 1)
  }

  @Test("a function that is no bus master touches no memory")
  func noBusMaster() {
    bench.bringUp()
    _ = bench.takeEvents()
    bench.controller.function.setRegister(PCIRegister.command, width: 2, value: 2)
    bench.commands.put(0, 23)
    bench.write(0x2000, 0)
    bench.setPort(2, 0x10)
    #expect(bench.takeEvents().isEmpty)
    let host = PCIHost(addressSpace: FakeAddressSpace(), interruptRouter: FakeRouter(), state: nil)
    host.insert(bench.controller.function, at: PCISlot(device: 3))
    host.writeConfiguration(PCISlot(device: 3), offset: 4, width: 2, value: 6)
    #expect(bench.takeEvents().map(\.kind) == [34, 33], "it goes on when it is one")
  }

  @Test("a command ring that is stopped again and again costs no memory without end")
  func stops() {
    bench.bringUp(segments: [16])
    for index in 0..<10_000 as Range<UInt64> {
      bench.write64(0x58, 0x1_0000 + index * 64)
      bench.write(0x2000, 0)
      bench.write(0x58, 2)
    }
    var count = 0
    for _ in 0..<100 { count += bench.takeEvents().count }
    #expect((16...100).contains(count))
  }
}
