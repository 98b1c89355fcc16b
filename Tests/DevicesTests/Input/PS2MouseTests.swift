import DeviceModel
import Devices
import Testing

@Suite struct PS2MouseTests {
  func streaming(_ knock: UInt8...) -> InputBench {
    let bench = InputBench()
    for rate in knock { _ = bench.mouse(0xF3, rate) }
    #expect(bench.mouse(0xF4) == [0xFA])
    return bench
  }

  @Test("reset passes its self test and gives the standard identity")
  func reset() {
    let bench = InputBench()
    #expect(bench.mouse(0xFF) == [0xFA, 0xAA, 0x00])
    #expect(bench.mouse(0xF2) == [0xFA, 0x00])
  }

  @Test("nothing is reported before the driver enables it")
  func disabled() {
    let bench = InputBench()
    #expect(!bench.controller.accepts(.absolutePointer(x: 0, y: 0, buttons: [])))
    bench.move(5, 5)
    #expect(bench.nextPackets() == [])
    #expect(bench.mouse(0xF4) == [0xFA])
    #expect(bench.nextPackets() == [])
    #expect(bench.controller.accepts(.absolutePointer(x: 0, y: 0, buttons: [])))
    bench.move(5, 5)
    #expect(bench.drain() == [0x28, 5, 0xFB])
    #expect(bench.mouse(0xF5) == [0xFA])
    bench.move(1, 1)
    #expect(bench.nextPackets() == [])
  }

  @Test(
    "a packet has the signs, the movement and the buttons",
    arguments: [
      (0, 1, [0x28, 0x00, 0xFF]), (0, -1, [0x08, 0x00, 0x01]), (-1, 0, [0x18, 0xFF, 0x00]),
      (255, 255, [0x28, 0xFF, 0x01]), (-255, -255, [0x18, 0x01, 0xFF]),
    ] as [(Int, Int, [UInt8])])
  func packets(x: Int, y: Int, packet: [UInt8]) {
    let bench = streaming()
    bench.move(x, y)
    #expect(bench.drain() == packet)
  }

  @Test("left, right and middle have bits 0, 1 and 2")
  func buttons() {
    let bench = streaming()
    let sets: [(PointerButtons, UInt8)] = [
      (.left, 1), (.right, 2), (.middle, 4), ([.left, .right, .middle], 7), ([], 0),
    ]
    for (buttons, bits) in sets {
      bench.move(0, 0, buttons)
      #expect(bench.nextPackets(milliseconds: 20) == [0x08 | bits, 0, 0])
    }
  }

  @Test("movement longer than a packet goes in several")
  func long() {
    let bench = streaming()
    bench.move(1000, -700)
    let bytes = bench.nextPackets()
    #expect(movements(bytes).map(\.x).reduce(0, +) == 1000)
    #expect(movements(bytes).map(\.y).reduce(0, +) == 700)
    #expect(bytes.count == 12)
  }

  @Test("movements between two samples go in one packet")
  func coalesced() {
    let bench = streaming()
    bench.move(1, 0)
    #expect(bench.drain() == [0x08, 1, 0])
    for _ in 0..<10 { bench.move(2, 0) }
    #expect(bench.drain() == [])
    bench.clock.advance(milliseconds: 10)
    #expect(bench.drain() == [0x08, 20, 0])
  }

  @Test("the sample rate bounds the packets a second")
  func sampleRate() {
    for (rate, count): (UInt8, ClosedRange<Int>) in [
      (10, 10...11), (40, 40...41), (200, 199...201),
    ] {
      let bench = streaming(rate)
      var packets = 0
      for _ in 0..<1000 {
        bench.move(1, 0)
        packets += bench.drain().count / 3
        bench.clock.advance(milliseconds: 1)
      }
      #expect(count.contains(packets))
    }
  }

  @Test("a click within one sample is reported as press and release")
  func quickClick() {
    let bench = streaming()
    bench.move(1, 0)
    bench.move(0, 0, .left)
    bench.move(0, 0, [])
    bench.move(0, 0, .right)
    bench.move(3, 0, .right)
    bench.move(0, 0, [])
    #expect(
      bench.nextPackets() == [
        0x08, 1, 0, 0x09, 0, 0, 0x08, 0, 0, 0x0A, 3, 0, 0x08, 0, 0,
      ])
  }

  @Test("button changes that nobody reads do not grow without end")
  func bounded() {
    let bench = streaming()
    for index in 0..<10_000 { bench.move(1, 1, index % 2 == 0 ? .left : []) }
    let bytes = bench.nextPackets(milliseconds: 2000)
    #expect(bytes.count < 110 * 3)
    #expect(bytes.suffix(3).first == 0x28)
  }

  @Test("the knocks make it an IntelliMouse and an Explorer, until reset")
  func knocks() {
    let bench = InputBench()
    _ = bench.mouse(0xF3, 200, 0xF3, 100, 0xF3, 80)
    #expect(bench.mouse(0xF2) == [0xFA, 3])
    _ = bench.mouse(0xF3, 200, 0xF3, 200, 0xF3, 80)
    #expect(bench.mouse(0xF2) == [0xFA, 4])
    #expect(bench.mouse(0xF6, 0xF2) == [0xFA, 0xFA, 4])
    #expect(bench.mouse(0xFF) == [0xFA, 0xAA, 0])
    _ = bench.mouse(0xF3, 200, 0xF3, 100, 0xF3, 81)
    #expect(bench.mouse(0xF2) == [0xFA, 0])
  }

  @Test("an IntelliMouse sends the wheel, towards the user positive")
  func wheel() {
    let bench = streaming(200, 100, 80)
    bench.move(0, 0, wheel: 1)
    #expect(bench.drain() == [0x08, 0, 0, 0xFF])
    bench.clock.advance(milliseconds: 100)
    bench.move(1, 0, wheel: -10)
    #expect(bench.nextPackets() == [0x08, 1, 0, 7, 0x08, 0, 0, 3])
  }

  @Test("an Explorer sends a four-bit wheel and two more buttons")
  func explorer() {
    let bench = streaming(200, 200, 80)
    bench.move(0, 0, wheel: 1, [.side])
    #expect(bench.drain() == [0x08, 0, 0, 0x1F])
    bench.clock.advance(milliseconds: 100)
    bench.move(0, 0, wheel: -1, [.extra, .left])
    #expect(bench.drain() == [0x09, 0, 0, 0x21])
  }

  @Test("a standard mouse has no wheel byte")
  func noWheel() {
    let bench = streaming()
    bench.move(4, 0, wheel: 3)
    #expect(bench.nextPackets() == [0x08, 4, 0])
  }

  @Test("2:1 scaling follows the reference's table in stream mode only")
  func scaling() {
    let table = [(1, 1), (2, 1), (3, 3), (4, 6), (5, 9), (6, 12), (10, 20), (-4, -6), (-7, -14)]
    let bench = streaming()
    #expect(bench.mouse(0xE7) == [0xFA])
    for (count, scaled) in table {
      bench.clock.advance(milliseconds: 20)
      bench.move(count, 0)
      #expect(movements(bench.drain()).map(\.x) == [scaled])
    }
    bench.clock.advance(milliseconds: 20)
    bench.move(200, 0)
    // The overflow bit is set, the count at its end.
    #expect(bench.drain() == [0x48, 255, 0])
    #expect(bench.mouse(0xF0) == [0xFA])
    bench.move(4, 0)
    #expect(bench.mouse(0xEB) == [0xFA, 0x08, 4, 0])
    #expect(bench.mouse(0xEA, 0xE6) == [0xFA, 0xFA])
    bench.clock.advance(milliseconds: 20)
    bench.move(4, 0)
    #expect(movements(bench.drain()).map(\.x) == [4])
  }

  @Test("in remote mode movement waits until it is asked for")
  func remote() {
    let bench = InputBench()
    #expect(bench.mouse(0xF0) == [0xFA])
    bench.move(3, 0)
    bench.move(4, -1, .left)
    #expect(bench.nextPackets() == [])
    #expect(bench.mouse(0xEB) == [0xFA, 0x08, 3, 0])
    #expect(bench.mouse(0xEB) == [0xFA, 0x09, 4, 1])
    #expect(bench.mouse(0xEB) == [0xFA, 0x09, 0, 0])
    #expect(bench.mouse(0xEA, 0xF4) == [0xFA, 0xFA])
    bench.move(1, 0)
    #expect(bench.nextPackets() == [0x08, 1, 0])
  }

  @Test("in wrap mode everything comes back except its end and reset")
  func wrap() {
    let bench = InputBench()
    #expect(bench.mouse(0xEE) == [0xFA])
    #expect(bench.mouse(0x00, 0xF4, 0xE9, 0xEE, 0xFE) == [0x00, 0xF4, 0xE9, 0xEE, 0xFE])
    #expect(bench.mouse(0xEC) == [0xFA])
    #expect(bench.mouse(0xF2) == [0xFA, 0])
    #expect(bench.mouse(0xEE) == [0xFA])
    #expect(bench.mouse(0xFF) == [0xFA, 0xAA, 0])
    #expect(bench.mouse(0xF2) == [0xFA, 0])
  }

  @Test("the status tells modes, buttons, resolution and rate")
  func status() {
    let bench = InputBench()
    #expect(bench.mouse(0xE9) == [0xFA, 0x00, 2, 100])
    #expect(bench.mouse(0xE8, 3, 0xF3, 60, 0xE7, 0xF0, 0xF4) == Array(repeating: 0xFA, count: 7))
    bench.move(0, 0, [.left, .middle])
    #expect(bench.mouse(0xE9) == [0xFA, 0x76, 3, 60])
    #expect(bench.mouse(0xF6) == [0xFA])
    #expect(bench.mouse(0xE9) == [0xFA, 0x06, 2, 100])
  }

  @Test("unknown commands and wrong parameters are asked for again")
  func unknown() {
    let bench = InputBench()
    #expect(bench.mouse(0x00) == [0xFE])
    #expect(bench.mouse(0xE1) == [0xFE])
    #expect(bench.mouse(0xE8, 4) == [0xFA, 0xFE])
    #expect(bench.mouse(0xF3, 0) == [0xFA, 0xFE])
    #expect(bench.mouse(0xF3, 201) == [0xFA, 0xFE])
  }

  @Test("resend repeats the last reply or packet whole")
  func resend() {
    let bench = streaming()
    bench.move(7, 0)
    #expect(bench.drain() == [0x08, 7, 0])
    #expect(bench.mouse(0xFE) == [0x08, 7, 0])
    #expect(bench.mouse(0xE9) == [0xFA, 0x20, 2, 100])
    #expect(bench.mouse(0xFE) == [0xFA, 0x20, 2, 100])
  }

  @Test("a command in the middle of a packet drops its rest")
  func commandInPacket() {
    let bench = streaming()
    bench.move(7, 0)
    #expect(bench.read() == 0x08)
    bench.command(0xD4)
    bench.data(0xE6)
    #expect(bench.drain() == [7, 0xFA])
  }

  @Test("a half-sent packet, the rest of a movement and the mode survive save and restore")
  func saved() throws {
    let bench = streaming(200, 100, 80)
    bench.move(300, 0, wheel: 1)
    bench.move(0, 0, .left)
    #expect(bench.read() == 0x08)
    let other = try bench.moved()
    #expect(other.mouseLine.level)
    #expect(other.nextPackets() == bench.nextPackets())
    let again = try bench.moved()
    #expect(again.mouse(0xF2) == [0xFA, 3])
  }

  @Test("a parameter awaited and half a knock survive save and restore")
  func savedKnock() throws {
    let bench = InputBench()
    _ = bench.mouse(0xF3, 200, 0xF3)
    let other = try bench.moved()
    _ = other.mouse(100, 0xF3, 80)
    #expect(other.mouse(0xF2) == [0xFA, 3])
  }

  @Test("absurd movements neither crash nor last")
  func absurd() {
    let bench = streaming()
    for value in [Int.max, Int.min, 1 << 40, -1 << 40] {
      bench.move(value, value, wheel: value)
    }
    #expect(!bench.nextPackets(milliseconds: 100).isEmpty)
  }
}

@Suite struct AbsolutePointerTests {
  let bench = InputBench()

  init() {
    bench.controller.setScanoutSize(width: 1024, height: 768)
    _ = bench.mouse(0xF3, 200)
    _ = bench.mouse(0xF4)
  }

  func scaled(_ place: (x: Int, y: Int)) -> (UInt16, UInt16) {
    // The middle of the pixel, so that rounding does not matter.
    (
      UInt16(min((Double(place.x) + 0.5) * 65535 / 1023, 65535)),
      UInt16(min((Double(place.y) + 0.5) * 65535 / 767, 65535))
    )
  }

  @Test("the pointer arrives from wherever it was")
  func arrives() {
    for start in [(0, 0), (1023, 767), (512, 300)] {
      let fresh = AbsolutePointerTests().bench
      let (x, y) = scaled((700, 500))
      fresh.point(x, y)
      let place = follow(fresh.nextPackets(), from: start, width: 1024, height: 768)
      #expect(place == (700, 500))
    }
  }

  @Test("the pointer follows a path without going to the corner again")
  func follows() {
    var place = (x: 900, y: 700)
    for target in [(10, 10), (500, 20), (501, 20), (500, 700), (3, 400)] {
      let (x, y) = scaled(target)
      bench.point(x, y)
      place = follow(bench.nextPackets(), from: place, width: 1024, height: 768)
      #expect(place == target)
    }
    let (x, y) = scaled((4, 401))
    bench.point(x, y)
    #expect(bench.nextPackets() == [0x28, 1, 0xFF])
  }

  @Test("a path that is read late still ends where it should")
  func late() {
    for target in [(10, 10), (0, 20), (30, 0), (1023, 300), (1000, 767), (500, 400)] {
      let (x, y) = scaled(target)
      bench.point(x, y)
    }
    let place = follow(
      bench.nextPackets(milliseconds: 1000), from: (77, 77), width: 1024, height: 768)
    #expect(place == (500, 400))
  }

  @Test("a drift goes at the next touch of an edge")
  func edges() {
    let (x, y) = scaled((100, 100))
    bench.point(x, y)
    _ = bench.nextPackets()
    // The guest's pointer went elsewhere: it accelerates.
    var place = (x: 180, y: 60)
    bench.point(0, 0)
    place = follow(bench.nextPackets(), from: place, width: 1024, height: 768)
    #expect(place == (0, 0))
    place = (x: 60, y: 60)
    bench.point(65535, 65535)
    place = follow(bench.nextPackets(), from: (1000, 700), width: 1024, height: 768)
    #expect(place == (1023, 767))
  }

  @Test("a new picture size, a new driver and relative movement each synchronise again")
  func synchronises() {
    let (x, y) = scaled((100, 100))
    func packetsToSamePlace() -> Int {
      bench.point(x, y)
      return bench.nextPackets().count
    }
    #expect(packetsToSamePlace() > 6)
    #expect(packetsToSamePlace() == 0)
    bench.controller.setScanoutSize(width: 800, height: 600)
    #expect(packetsToSamePlace() > 6)
    _ = bench.mouse(0xF4)
    #expect(packetsToSamePlace() > 6)
    bench.move(1, 1)
    #expect(packetsToSamePlace() > 6)
  }

  @Test("a button goes down where the pointer was told to be, not before")
  func buttonAfterMove() {
    let (x, y) = scaled((300, 300))
    bench.point(x, y, .left)
    let bytes = bench.nextPackets()
    #expect(bytes.suffix(3) == [0x09, 0, 0])
    #expect(stride(from: 0, to: bytes.count - 3, by: 3).allSatisfy { bytes[$0] & 7 == 0 })
  }

  @Test("the place survives save and restore")
  func saved() throws {
    let (x, y) = scaled((300, 300))
    bench.point(x, y)
    _ = bench.nextPackets()
    let other = try bench.moved()
    let (x2, y2) = scaled((302, 301))
    other.point(x2, y2)
    #expect(other.nextPackets() == [0x28, 2, 0xFF])
  }

  @Test("odd picture sizes are harmless")
  func sizes() {
    for (width, height) in [(0, 0), (-5, 1), (1, 1), (Int.max, Int.max)] {
      bench.controller.setScanoutSize(width: width, height: height)
      bench.point(65535, 65535)
      bench.point(0, 0)
      _ = bench.nextPackets(milliseconds: 50)
    }
  }
}
