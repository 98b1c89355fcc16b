import DeviceModel
import Devices
import Testing

/// A producer's end of a command or transfer ring that ends in a Link TRB.
final class DriverRing {
  private unowned let bench: XHCIBench
  let base: UInt64
  let size: Int
  private(set) var index = 0
  private(set) var cycle: UInt32 = 1

  init(_ bench: XHCIBench, at base: UInt64, size: Int) {
    self.bench = bench
    self.base = base
    self.size = size
  }

  fileprivate func goOn(at index: Int, _ cycle: UInt32) {
    (self.index, self.cycle) = (index, cycle)
  }

  /// Where the next TRB goes, with the cycle bit.
  var place: UInt64 { base + UInt64(index * 16) }
  var word: UInt64 { place | UInt64(cycle) }

  /// - Returns: where it was put.
  @discardableResult
  func put(_ parameter: UInt64, status: UInt32 = 0, _ kind: UInt32, _ flags: UInt32 = 0) -> UInt64 {
    let address = place
    bench.putTRB(parameter, status, kind << 10 | flags | cycle, at: address)
    index += 1
    if index == size - 1 {
      // A chain goes on behind the link.
      let chain = flags & TRBFlag.chain
      bench.putTRB(base, 0, 6 << 10 | TRBFlag.toggle | chain | cycle, at: place)
      index = 0
      cycle ^= 1
    }
    return address
  }
}

enum TRBKind {
  static let normal: UInt32 = 1
  static let setup: UInt32 = 2
  static let data: UInt32 = 3
  static let status: UInt32 = 4
  static let link: UInt32 = 6
  static let eventData: UInt32 = 7
  static let noOp: UInt32 = 8
}

enum TRBFlag {
  static let toggle: UInt32 = 1 << 1
  static let shortPacket: UInt32 = 1 << 2
  static let chain: UInt32 = 1 << 4
  static let completion: UInt32 = 1 << 5
  static let immediate: UInt32 = 1 << 6
  static let directionIn: UInt32 = 1 << 16
}

struct DriverEvent: Equatable {
  var parameter: UInt64
  var status: UInt32
  var control: UInt32

  var kind: Int { Int(control >> 10 & 63) }
  var code: Int { Int(status >> 24) }
  var length: Int { Int(status & 0xFF_FFFF) }
  var slot: Int { Int(control >> 24) }
  var endpoint: Int { Int(control >> 16 & 31) }
  var isEventData: Bool { control & 4 != 0 }
}

/// The controller with tablet and keyboard, and a driver that follows section 4.2.
final class XHCIBench {
  static let contextArray: UInt64 = 0x1000
  static let segmentTable: UInt64 = 0x1800
  static let eventBase: UInt64 = 0x2000
  static let commandBase: UInt64 = 0x8000
  static let input: UInt64 = 0x9000
  static let buffer: UInt64 = 0x8_0000

  let memory: FakeMemory
  let clock: FakeClock
  let messages = FakeMessages()
  let tablet: USBTablet
  let keyboard: USBKeyboard
  let controller: XHCI
  var log: [String] = []
  private(set) var lights: [KeyboardLEDs] = []
  private(set) lazy var commands: DriverRing = DriverRing(self, at: Self.commandBase, size: 16)
  private var rings: [Int: DriverRing] = [:]
  private var segments: [Int] = []
  private var segment = 0
  private var index = 0
  private var cycle: UInt32 = 1

  init() {
    memory = FakeMemory(size: 1 << 20)
    clock = FakeClock()
    tablet = USBTablet(state: nil)
    keyboard = USBKeyboard(clock: clock, state: nil)
    var lines: (String) -> Void = { _ in }
    controller = XHCI(
      devices: [tablet, keyboard], memory: memory, messages: messages, clock: clock,
      log: { lines($0) }, state: nil)
    lines = { [unowned self] in log.append($0) }
    keyboard.onLEDs = { [unowned self] in lights.append($0) }
    controller.function.setRegister(PCIRegister.command, width: 2, value: 6)
  }

  /// The same machine, saved and restored; its driver goes on.
  init(restoring other: XHCIBench) {
    memory = other.memory
    clock = FakeClock(now: other.clock.now)
    tablet = USBTablet(state: other.tablet.saveState())
    keyboard = USBKeyboard(clock: clock, state: other.keyboard.saveState())
    controller = XHCI(
      devices: [tablet, keyboard], memory: memory, messages: messages, clock: clock,
      log: { _ in }, state: other.controller.saveState())
    segments = other.segments
    (segment, index, cycle) = (other.segment, other.index, other.cycle)
    for (key, ring) in other.rings { rings[key] = DriverRing(self, goingOn: ring) }
    commands = DriverRing(self, goingOn: other.commands)
    controller.resume()
  }

  // MARK: Registers and memory

  func read(_ offset: UInt64) -> UInt32 {
    UInt32(truncatingIfNeeded: controller.read(offset: offset, width: 4))
  }

  func write(_ offset: UInt64, _ value: UInt32) {
    controller.write(offset: offset, width: 4, value: UInt64(value))
  }

  func write64(_ offset: UInt64, _ value: UInt64) {
    write(offset, UInt32(truncatingIfNeeded: value))
    write(offset + 4, UInt32(truncatingIfNeeded: value >> 32))
  }

  var status: UInt32 { read(0x44) }
  var isHalted: Bool { status & 1 != 0 }
  var hasSystemError: Bool { status & 4 != 0 }

  func port(_ number: Int) -> UInt32 { read(0x430 + UInt64(number) * 16) }

  /// Keeps the port's power and clears no change but those of `value`.
  func setPort(_ number: Int, _ value: UInt32) {
    write(0x430 + UInt64(number) * 16, 0x200 | value)
  }

  func put(_ words: [UInt32], at address: UInt64) {
    for (place, word) in words.enumerated() {
      for byte in 0..<4 {
        memory.bytes[Int(address) + place * 4 + byte] = UInt8(
          truncatingIfNeeded: word >> (byte * 8))
      }
    }
  }

  func putTRB(_ parameter: UInt64, _ status: UInt32, _ control: UInt32, at address: UInt64) {
    put(
      [
        UInt32(truncatingIfNeeded: parameter), UInt32(truncatingIfNeeded: parameter >> 32), status,
        control,
      ], at: address)
  }

  func words(_ count: Int, at address: UInt64) -> [UInt32] {
    (0..<count).map { word in
      (0..<4).reduce(0) {
        $0 | UInt32(memory.bytes[Int(address) + word * 4 + $1]) << UInt32($1 * 8)
      }
    }
  }

  func bytes(_ count: Int, at address: UInt64 = XHCIBench.buffer) -> [UInt8] {
    Array(memory.bytes[Int(address)..<Int(address) + count])
  }

  // MARK: The driver

  /// Reset, then everything up to R/S and past the ports' first events.
  func bringUp(segments: [Int] = [64], interrupts: Bool = true) {
    write(0x40, 2)
    memory.bytes.replaceSubrange(0..<0x8_0000, with: repeatElement(0, count: 0x8_0000))
    self.segments = segments
    (segment, index, cycle) = (0, 0, 1)
    commands = DriverRing(self, at: Self.commandBase, size: 16)
    rings = [:]
    for (place, count) in segments.enumerated() {
      put(
        [UInt32(segmentBase(place)), 0, UInt32(count), 0],
        at: Self.segmentTable + UInt64(place) * 16)
    }
    for slot in 1...4 { put([UInt32(context(slot)), 0], at: Self.contextArray + UInt64(slot) * 8) }
    write(0x78, 16)
    write64(0x70, Self.contextArray)
    write64(0x58, Self.commandBase | 1)
    write(0x1028, UInt32(segments.count))
    write64(0x1030, Self.segmentTable)
    write64(0x1038, Self.eventBase)
    write(0x1020, interrupts ? 2 : 0)
    write(0x40, 5)
  }

  private func segmentBase(_ number: Int) -> UInt64 { Self.eventBase + UInt64(number) * 0x1000 }
  func context(_ slot: Int) -> UInt64 { 0xA000 + UInt64(slot) * 0x1000 }

  /// The events that are new; the controller is told that they were taken, or not.
  func takeEvents(acknowledge: Bool = true) -> [DriverEvent] {
    var events: [DriverEvent] = []
    for _ in 0..<4096 {
      let place = segmentBase(segment) + UInt64(index * 16)
      let words = words(4, at: place)
      guard words[3] & 1 == cycle else { break }
      events.append(
        DriverEvent(
          parameter: UInt64(words[0]) | UInt64(words[1]) << 32, status: words[2], control: words[3]
        ))
      index += 1
      guard index == segments[segment] else { continue }
      (segment, index) = ((segment + 1) % segments.count, 0)
      if segment == 0 { cycle ^= 1 }
    }
    if acknowledge { acknowledgeEvents() }
    return events
  }

  func acknowledgeEvents() {
    write64(0x1038, segmentBase(segment) + UInt64(index * 16) | 8)
  }

  /// Has one command carried out.
  func command(
    _ kind: UInt32, slot: Int = 0, endpoint: Int = 0, _ parameter: UInt64 = 0, _ flags: UInt32 = 0
  )
    -> (code: Int, slot: Int)
  {
    let address = commands.put(
      parameter, kind, UInt32(slot) << 24 | UInt32(endpoint) << 16 | flags)
    write(0x2000, 0)
    let completion = takeEvents().first { $0.kind == 33 && $0.parameter == address }
    return (completion?.code ?? 0, completion?.slot ?? 0)
  }

  func ring(_ slot: Int, _ endpoint: Int) -> DriverRing {
    let key = slot * 32 + endpoint
    let base = 0x2_0000 + UInt64(slot) * 0x8000 + UInt64(endpoint) * 0x400
    let ring = rings[key] ?? DriverRing(self, at: base, size: 16)
    rings[key] = ring
    return ring
  }

  func doorbell(_ slot: Int, _ endpoint: Int) {
    write(0x2000 + UInt64(slot) * 4, UInt32(endpoint))
  }

  /// Describes the default control endpoint in the input context.
  func putAddressInput(slot: Int, port: Int) {
    put([0, 3, 0, 0, 0, 0, 0, 0], at: Self.input)
    put([0x0830_0000, UInt32(port) << 16, 0, 0], at: Self.input + 0x20)
    put([0, 3 << 1 | 4 << 3 | 64 << 16, UInt32(ring(slot, 1).word), 0, 8], at: Self.input + 0x40)
  }

  /// Resets a port and gives its device a slot and an address.
  func address(port: Int) -> Int {
    setPort(port, 0x10)
    setPort(port, 0x7F << 17)
    let (code, slot) = command(9)
    #expect(code == 1)
    putAddressInput(slot: slot, port: port)
    #expect(command(11, slot: slot, Self.input).code == 1)
    return slot
  }

  /// Adds the interrupt endpoint, or takes it away.
  func configure(slot: Int, add: UInt32 = 1 << 3, drop: UInt32 = 0, type: UInt32 = 7) -> Int {
    put([drop, add | 1, 0, 0, 0, 0, 0, 0], at: Self.input)
    put([0x1830_0000], at: Self.input + 0x20)
    put(
      [3 << 16, 3 << 1 | type << 3 | 8 << 16, UInt32(ring(slot, 3).word), 0, 8],
      at: Self.input + 0x80)
    return command(12, slot: slot, Self.input).code
  }

  /// Addressed, configured, set to its configuration and asked for reports.
  func enumerate(port: Int) -> Int {
    let slot = address(port: port)
    #expect(configure(slot: slot) == 1)
    #expect(request(slot, 0x00, 9, value: 1).code == 1)
    // Nothing is on the ring yet, but it will be.
    doorbell(slot, 3)
    return slot
  }

  /// A control transfer: the code of the stage that ended it, and what the device sent.
  func request(
    _ slot: Int, _ type: UInt8, _ request: UInt8, value: UInt16 = 0, index: UInt16 = 0,
    length: Int = 0, data: [UInt8] = []
  ) -> (code: Int, bytes: [UInt8]) {
    let ring = ring(slot, 1)
    let isIn = type & 0x80 != 0
    let count = isIn ? length : data.count
    let setup =
      UInt64(type) | UInt64(request) << 8 | UInt64(value) << 16 | UInt64(index) << 32
      | UInt64(count) << 48
    for place in 0..<max(count, data.count) {
      memory.bytes[Int(Self.buffer) + place] = isIn ? 0xEE : data[place]
    }
    ring.put(setup, status: 8, TRBKind.setup, TRBFlag.immediate)
    if count > 0 {
      ring.put(
        Self.buffer, status: UInt32(count), TRBKind.data,
        (isIn ? TRBFlag.directionIn : 0) | TRBFlag.shortPacket)
    }
    ring.put(0, TRBKind.status, (isIn && count > 0 ? 0 : TRBFlag.directionIn) | TRBFlag.completion)
    doorbell(slot, 1)
    let events = takeEvents().filter { $0.kind == 32 && $0.slot == slot && $0.endpoint == 1 }
    let left = events.first { $0.code == 13 }?.length ?? 0
    return (events.last?.code ?? 0, isIn ? bytes(count - left) : [])
  }

  /// Offers the interrupt endpoint a buffer.
  @discardableResult
  func arm(_ slot: Int, count: Int = 8, at address: UInt64 = XHCIBench.buffer) -> UInt64 {
    let place = ring(slot, 3).put(
      address, status: UInt32(count), TRBKind.normal, TRBFlag.completion | TRBFlag.shortPacket)
    doorbell(slot, 3)
    return place
  }

  func point(_ x: UInt16, _ y: UInt16, _ buttons: PointerButtons = []) {
    tablet.deliver(.absolutePointer(x: x, y: y, buttons: buttons))
  }

  func key(_ code: UInt16, _ isPressed: Bool) {
    keyboard.deliver(.key(KeyCode(code), pressed: isPressed))
  }
}

extension DriverRing {
  convenience init(_ bench: XHCIBench, goingOn other: DriverRing) {
    self.init(bench, at: other.base, size: other.size)
    goOn(at: other.index, other.cycle)
  }
}
