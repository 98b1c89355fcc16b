import DeviceModel
import Testing

/// Remembers writes as (offset, width, value) and reads as offset + 0x10 per byte.
private final class Recorder: BusTarget {
  let maximumAccessWidth: Int
  var writes: [[UInt64]] = []

  init(maximumAccessWidth: Int) { self.maximumAccessWidth = maximumAccessWidth }

  func read(offset: UInt64, width: Int) -> UInt64 {
    (0..<UInt64(width)).reduce(0) { $0 | (offset + $1 + 0x10) << ($1 * 8) }
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    writes.append([offset, UInt64(width), value])
  }
}

@Suite("The bus")
struct BusTests {
  private let bus = Bus(name: "test")

  @Test("an access goes to the target that decodes it, at the target's own offset")
  func decodes() throws {
    let target = Recorder(maximumAccessWidth: 4)
    try bus.map(target, name: "target", at: 0x100, size: 8)
    #expect(bus.read(address: 0x104, width: 4) == 0x1716_1514)
    bus.write(address: 0x102, width: 2, value: 0xABCD_1234)
    #expect(target.writes == [[2, 2, 0x1234]])
  }

  @Test("an access wider than the target is split into ascending parts")
  func splits() throws {
    let target = Recorder(maximumAccessWidth: 1)
    try bus.map(target, name: "target", at: 0x100, size: 4)
    #expect(bus.read(address: 0x100, width: 4) == 0x1312_1110)
    bus.write(address: 0x100, width: 2, value: 0xBEEF)
    #expect(target.writes == [[0, 1, 0xEF], [1, 1, 0xBE]])
  }

  @Test("an access over the end of a range reads ones there and drops its write")
  func runsOver() throws {
    let target = Recorder(maximumAccessWidth: 4)
    try bus.map(target, name: "target", at: 0x100, size: 2)
    #expect(bus.read(address: 0x101, width: 4) == 0xFFFF_FF11)
    bus.write(address: 0x0FF, width: 2, value: 0x5566)
    #expect(target.writes == [[0, 1, 0x55]])
  }

  @Test("nothing there reads as all ones", arguments: [1, 2, 4])
  func masterAbort(width: Int) {
    #expect(bus.read(address: 0x500, width: width) == (1 << UInt64(width * 8)) - 1)
  }

  @Test("an overlapping, empty or wrapping range is refused and maps nothing")
  func refusals() throws {
    let target = Recorder(maximumAccessWidth: 1)
    try bus.map(target, name: "first", at: 0x100, size: 0x10)
    for (base, size) in [(0x10F, 1), (0xF0, 0x11), (0x104, 2), (0x200, 0)] as [(UInt64, UInt64)] {
      #expect(throws: BusError.self) {
        try bus.map(target, name: "second", at: base, size: size)
      }
    }
    #expect(throws: BusError.self) {
      try bus.map(target, name: "second", at: .max, size: 2)
    }
    #expect(bus.read(address: 0xF0, width: 1) == 0xFF)
  }

  @Test("a range that was unmapped can be mapped again")
  func unmapping() throws {
    let target = Recorder(maximumAccessWidth: 1)
    try bus.map(target, name: "target", at: 0x100, size: 1)
    try bus.unmap(at: 0x100)
    #expect(bus.read(address: 0x100, width: 1) == 0xFF)
    #expect(throws: BusError.self) { try bus.unmap(at: 0x100) }
    try bus.map(target, name: "target", at: 0x100, size: 1)
    #expect(bus.read(address: 0x100, width: 1) == 0x10)
  }

  @Test("hostile addresses at the very top of the space do not trap")
  func topOfTheSpace() throws {
    try bus.map(Recorder(maximumAccessWidth: 4), name: "target", at: .max - 1, size: 2)
    _ = bus.read(address: .max, width: 8)
    bus.write(address: .max, width: 8, value: 1)
  }
}
