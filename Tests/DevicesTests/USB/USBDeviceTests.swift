import DeviceModel
import Devices
import Testing

@Suite("USB tablet and keyboard")
struct USBDeviceTests {
  let bench = XHCIBench()

  init() { bench.bringUp() }

  private func descriptor(_ slot: Int, _ type: UInt16, _ index: UInt16 = 0, length: Int = 255)
    -> [UInt8]
  {
    bench.request(slot, 0x80, 6, value: type << 8 | index, length: length).bytes
  }

  @Test("descriptors say what there is, whole or in part", arguments: [1, 2])
  func descriptors(port: Int) {
    let slot = bench.address(port: port)
    let device = descriptor(slot, 1)
    #expect(device.count == 18 && device[7] == 64 && device[17] == 1)
    #expect(descriptor(slot, 1, length: 8) == Array(device.prefix(8)))
    let configuration = descriptor(slot, 2)
    #expect(configuration.count == 34 && configuration[2] == 34 && configuration[5] == 1)
    #expect(
      Array(configuration[9..<18]) == [9, 4, 0, 0, 1, 3] + (port == 1 ? [0, 0, 0] : [1, 1, 0]))
    #expect(Array(configuration[27...]) == [7, 5, 0x81, 3, 8, 0, 4])
    let hid = bench.request(slot, 0x81, 6, value: 0x2100, length: 255).bytes
    #expect(hid == Array(configuration[18..<27]))
    let report = bench.request(slot, 0x81, 6, value: 0x2200, length: 255).bytes
    #expect(report.count == Int(hid[7]) && report.first == 5 && report.last == 0xC0)
    #expect(descriptor(slot, 3) == [4, 3, 9, 4])
    let product = descriptor(slot, 3, UInt16(device[15])).dropFirst(2).enumerated()
    let text = product.filter { $0.offset % 2 == 0 }.map(\.element)
    #expect(text == Array("Carrel USB \(port == 1 ? "Tablet" : "Keyboard")".utf8))
    #expect(descriptor(slot, 6) == [10, 6, 0, 2, 0, 0, 0, 64, 1, 0])
    #expect(descriptor(slot, 7)[1] == 7 && descriptor(slot, 7).last == 1)
  }

  /// Items of a report descriptor: every input and output field's bits.
  @Test("a report is as long as its descriptor says", arguments: [1, 2])
  func reportLength(port: Int) {
    let slot = bench.enumerate(port: port)
    let items = bench.request(slot, 0x81, 6, value: 0x2200, length: 255).bytes
    var (place, size, count) = (0, 0, 0)
    var bits: [UInt8: Int] = [:]
    while place < items.count {
      let data = [0, 1, 2, 4][Int(items[place] & 3)]
      let value = data > 0 ? Int(items[place + 1]) : 0
      switch items[place] & 0xFC {
      case 0x74: size = value
      case 0x94: count = value
      case 0x80, 0x90: bits[items[place] & 0xFC, default: 0] += size * count
      default: break
      }
      place += 1 + data
    }
    #expect(bits == (port == 1 ? [0x80: 56] : [0x80: 64, 0x90: 8]))
    let report = bench.request(slot, 0xA1, 1, value: 0x0100, length: 64).bytes
    #expect(report.count == (port == 1 ? 7 : 8))
  }

  @Test("standard requests do as USB 2.0 says, and others stall")
  func standardRequests() {
    let slot = bench.address(port: 1)
    #expect(bench.request(slot, 0x80, 8, length: 1).bytes == [0])
    #expect(bench.request(slot, 0x00, 9, value: 1).code == 1)
    #expect(bench.request(slot, 0x80, 8, length: 1).bytes == [1])
    #expect(bench.request(slot, 0x80, 0, length: 2).bytes == [0, 0])
    #expect(bench.request(slot, 0x81, 10, length: 1).bytes == [0])
    #expect(bench.request(slot, 0x01, 11).code == 1)
    #expect(bench.request(slot, 0x02, 3, value: 0, index: 0x81).code == 1)
    #expect(bench.request(slot, 0x82, 0, index: 0x81, length: 2).bytes == [1, 0])
    #expect(bench.request(slot, 0x02, 1, value: 0, index: 0x81).code == 1)
    #expect(bench.request(slot, 0x82, 0, index: 0x81, length: 2).bytes == [0, 0])
    for (type, request, value, index) in [
      (0x00, 9, 2, 0), (0x00, 5, 7, 0), (0x01, 11, 1, 0), (0x80, 6, 0x0500, 0), (0x82, 0, 0, 0x82),
      (0xC0, 1, 0, 0), (0xA1, 1, 0x0200, 0), (0x21, 11, 0, 0), (0x81, 6, 0x2200, 1),
    ] as [(UInt8, UInt8, UInt16, UInt16)] {
      let length = type & 0x80 == 0 ? 0 : 8
      let answer = bench.request(slot, type, request, value: value, index: index, length: length)
      #expect(answer.code == 6, "\(type) \(request) \(value)")
      #expect(bench.words(1, at: bench.context(slot) + 0x20)[0] & 7 == 2, "halted")
      #expect(bench.command(14, slot: slot, endpoint: 1).code == 1)
      #expect(bench.command(16, slot: slot, endpoint: 1, bench.ring(slot, 1).word).code == 1)
    }
    #expect(bench.request(slot, 0x80, 8, length: 1).bytes == [1])
  }

  @Test("the tablet reports position, buttons and wheels to a driver that waits")
  func tablet() {
    #expect(!bench.tablet.accepts(.absolutePointer(x: 1, y: 1, buttons: [])))
    let slot = bench.enumerate(port: 1)
    let address = bench.arm(slot)
    #expect(bench.takeEvents().isEmpty, "there is nothing to report yet")
    bench.point(0xFFFF, 0x8000, [.left, .side])
    let events = bench.takeEvents()
    #expect(events.map(\.kind) == [32] && events.first?.parameter == address)
    #expect(events.first?.code == 13 && events.first?.length == 1)
    #expect(bench.bytes(7) == [9, 0xFF, 0x7F, 0, 0x40, 0, 0])
    bench.arm(slot, count: 7)
    bench.tablet.deliver(
      .relativePointer(x: 0, y: 0, wheel: -300, horizontalWheel: 2, buttons: [.right]))
    #expect(bench.takeEvents().first?.code == 1)
    #expect(bench.bytes(7) == [2, 0xFF, 0x7F, 0, 0x40, 0x81, 2])
    bench.arm(slot)
    bench.point(0xFFFF, 0x8000, [.right])
    #expect(bench.takeEvents().isEmpty, "a turn is told once, and nothing else changed")
    #expect(
      !bench.tablet.accepts(.relativePointer(x: 1, y: 0, wheel: 0, horizontalWheel: 0, buttons: []))
    )
    #expect(!bench.tablet.accepts(.key(KeyCode(1), pressed: true)))
  }

  @Test("a driver that did not ask for reports, or no longer does, gets none")
  func unasked() {
    let event = InputEvent.absolutePointer(x: 1, y: 1, buttons: [])
    let slot = bench.address(port: 1)
    #expect(bench.configure(slot: slot) == 1)
    bench.doorbell(slot, 3)
    #expect(!bench.tablet.accepts(event), "it has no configuration")
    #expect(bench.request(slot, 0x00, 9, value: 1).code == 1)
    #expect(bench.tablet.accepts(event))
    #expect(bench.configure(slot: slot, drop: 1 << 3) == 1)
    #expect(!bench.tablet.accepts(event))
    bench.arm(slot)
    #expect(bench.tablet.accepts(event))
    #expect(bench.command(15, slot: slot, endpoint: 3).code == 1)
    #expect(!bench.tablet.accepts(event))
  }

  @Test("movement that nobody asked for is overtaken; presses keep their places")
  func overtaking() {
    let slot = bench.enumerate(port: 1)
    for x in 1...100 { bench.point(UInt16(x) << 8, 0) }
    bench.point(100 << 8, 0, [.left])
    for x in 101...200 { bench.point(UInt16(x) << 8, 0, [.left]) }
    bench.point(200 << 8, 0)
    var reports: [[UInt8]] = []
    for _ in 0..<64 {
      bench.arm(slot)
      guard !bench.takeEvents().isEmpty else { break }
      reports.append(bench.bytes(3))
    }
    #expect(reports.contains([1, 0, 50]), "pressed where it was pressed")
    #expect(reports.last == [0, 0, 100] && reports.dropLast().last == [1, 0, 100])
    #expect(reports.count <= 6)
  }

  @Test("input goes elsewhere while a driver does not read")
  func unread() {
    _ = bench.enumerate(port: 2)
    var taken = 0
    for press in 0..<1000 {
      let event = InputEvent.key(KeyCode(0x1E), pressed: press % 2 == 0)
      if bench.keyboard.accepts(event) { taken += 1 }
      bench.keyboard.deliver(event)
    }
    #expect(taken == 64)
  }

  @Test("the keyboard reports modifiers, up to six keys, and that there are too many")
  func keyboard() {
    let slot = bench.enumerate(port: 2)
    func report(_ code: UInt16, _ isPressed: Bool) -> [UInt8] {
      bench.arm(slot)
      bench.key(code, isPressed)
      return bench.takeEvents().map(\.kind) == [32] ? bench.bytes(8) : []
    }
    #expect(report(0x2A, true) == [2, 0, 0, 0, 0, 0, 0, 0])
    #expect(report(0x1E, true) == [2, 0, 4, 0, 0, 0, 0, 0])
    #expect(report(0xE038, true) == [0x42, 0, 4, 0, 0, 0, 0, 0])
    #expect(report(0x2A, false) == [0x40, 0, 4, 0, 0, 0, 0, 0])
    for code in 0x1F...0x22 as ClosedRange<UInt16> { #expect(!report(code, true).isEmpty) }
    #expect(report(0xE11D, true) == [0x40, 0, 4, 0x16, 7, 9, 10, 0x48])
    #expect(report(0x24, true) == [0x40, 0, 1, 1, 1, 1, 1, 1])
    #expect(report(0x24, false) == [0x40, 0, 4, 0x16, 7, 9, 10, 0x48])
    bench.arm(slot)
    bench.key(0x1E, true)
    #expect(bench.takeEvents().isEmpty, "drivers repeat keys by themselves")
    #expect(!bench.keyboard.accepts(.key(KeyCode(0xE010), pressed: true)), "no such usage")
  }

  @Test("every key of a PC keyboard has a usage of its own")
  func usages() {
    let slot = bench.enumerate(port: 2)
    var keys: [UInt16] = Array(0x01...0x53)
    keys += [0x56, 0x57, 0x58, 0x70, 0x71, 0x72, 0x73, 0x79, 0x7B, 0x7D, 0x7E, 0xE11D]
    keys += [0xE01C, 0xE01D, 0xE020, 0xE02E, 0xE030, 0xE035, 0xE037, 0xE038]
    keys += [0xE047, 0xE048, 0xE049, 0xE04B, 0xE04D, 0xE04F, 0xE050, 0xE051, 0xE052, 0xE053]
    keys += [0xE05B, 0xE05C, 0xE05D, 0xE05E]
    var seen: Set<[UInt8]> = []
    for key in keys {
      bench.arm(slot)
      bench.key(key, true)
      #expect(bench.takeEvents().map(\.kind) == [32], "key \(key)")
      seen.insert(bench.bytes(8))
      bench.arm(slot)
      bench.key(key, false)
      _ = bench.takeEvents()
      #expect(bench.bytes(8) == [0, 0, 0, 0, 0, 0, 0, 0])
    }
    #expect(seen.count == keys.count && keys.count >= 105)
  }

  @Test("lights, idle rate and protocol are the driver's to set")
  func classRequests() {
    let slot = bench.enumerate(port: 2)
    #expect(bench.request(slot, 0x21, 9, value: 0x0200, data: [0x03]).code == 1)
    #expect(bench.lights == [[.numLock, .capsLock]])
    #expect(bench.keyboard.leds == [.numLock, .capsLock])
    #expect(bench.request(slot, 0xA1, 1, value: 0x0200, length: 1).bytes == [3])
    #expect(bench.request(slot, 0xA1, 3, length: 1).bytes == [1])
    #expect(bench.request(slot, 0x21, 11, value: 0).code == 1)
    #expect(bench.request(slot, 0xA1, 3, length: 1).bytes == [0])
    #expect(bench.request(slot, 0x21, 10, value: 0x0500).code == 1)
    #expect(bench.request(slot, 0xA1, 2, length: 1).bytes == [5])
    bench.key(0x1E, true)
    for _ in 0..<3 {
      bench.arm(slot)
      bench.clock.advance(milliseconds: 20)
      #expect(bench.takeEvents().map(\.kind) == [32])
      #expect(bench.bytes(8) == [0, 0, 4, 0, 0, 0, 0, 0])
    }
    #expect(bench.request(slot, 0x21, 10, value: 0).code == 1)
    bench.arm(slot)
    #expect(bench.takeEvents().count == 1, "the last that was repeated")
    bench.arm(slot)
    bench.clock.advance(milliseconds: 1000)
    #expect(bench.takeEvents().isEmpty)
    // A reset of the port makes it a keyboard that nobody configured.
    bench.setPort(2, 0x10)
    #expect(bench.keyboard.leds == [] && bench.lights.last == [])
    #expect(!bench.keyboard.accepts(.key(KeyCode(0x1E), pressed: true)))
  }

  @Test("a halted endpoint of the device stalls until the driver clears it")
  func halted() {
    let slot = bench.enumerate(port: 1)
    #expect(bench.request(slot, 0x02, 3, value: 0, index: 0x81).code == 1)
    bench.arm(slot)
    #expect(bench.takeEvents().map(\.code) == [6])
    #expect(bench.command(15, slot: slot, endpoint: 3).code == 19)
    #expect(bench.command(14, slot: slot, endpoint: 3).code == 1)
    #expect(bench.request(slot, 0x02, 1, value: 0, index: 0x81).code == 1)
    bench.doorbell(slot, 3)
    bench.point(2, 2)
    #expect(bench.takeEvents().map(\.kind) == [32], "the transfer is tried again")
  }
}
