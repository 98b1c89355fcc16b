import DeviceModel

/// Drives an xHCI controller and its devices with an arbitrary byte string, as a guest with
/// bad intentions would: registers, rings, contexts and requests. Shared by the fuzz target
/// and the tests.
package enum XHCIFuzzing {
  /// Interprets `program` as register accesses, memory contents, whole commands and
  /// transfers, input and time, and saves and restores the controller on the way.
  ///
  /// - Returns: whether the tablet can be enumerated and read after a reset, whatever the
  ///   controller was brought to.
  @discardableResult
  package static func run(_ program: [UInt8]) -> Bool {
    let bench = Bench()
    bench.start()
    var rest = program[...]
    func next() -> UInt8 { rest.popFirst() ?? 0 }
    func word() -> UInt32 { (0..<4).reduce(0) { value, _ in value << 8 | UInt32(next()) } }
    while let operation = rest.popFirst() {
      let width = 1 << Int(operation >> 4 & 3)
      switch operation & 15 {
      case 0: bench.write(UInt64(word() & 0x3FFC), word())
      case 1: _ = bench.controller.read(offset: UInt64(word() & 0x3FFF), width: min(width, 4))
      case 2: bench.start()
      case 3: bench.enumerate(port: operation & 0x10 == 0 ? 1 : 2)
      case 4: bench.write(0x2000 + UInt64(next() & 31) * 4, UInt32(next()))
      case 5: bench.put([next(), next(), next(), next()], at: Int(word() & 0xFFFC))
      case 6:
        bench.command(
          UInt64(next()) << 8 | UInt64(operation >> 4), status: 0,
          TRB.control(next() & 63, slot: Int(next() & 7), endpoint: Int(next()), word() & 0x3FE))
      case 7:
        bench.transfer(
          slot: Int(next() & 3), endpoint: Int(next() & 3),
          TRB(
            parameter: next() == 0xFF ? .max - 64 : UInt64(next()) << 8,
            status: UInt32(next()) << UInt32(operation >> 4),
            control: UInt32(next()) << 10 | word() & 0xFFFF_03FE))
      case 8: bench.press(next(), isPressed: operation & 0x10 != 0)
      case 9: bench.point(x: next(), y: next(), buttons: next(), wheel: next())
      case 10: bench.clock.advance(by: UInt64(next()) * 1_000_000)
      case 11: bench.restore()
      case 12: bench.takeEvents(Int(next()))
      case 13: bench.write(0x440 + UInt64(next() & 7) * 16, word())
      case 14: bench.request(slot: Int(next() & 3), UInt64(word()) << 32 | UInt64(word()))
      default: if operation & 0xF0 == 0xF0 { bench.controller.reset() }
      }
    }
    return bench.recovers()
  }

  private final class Bench {
    /// Where the driver has what the controller reads.
    private enum Place {
      static let contextArray = 0x1000
      static let segments = 0x1400
      static let events = 0x2000
      static let commands = 0x3000
      static let input = 0x4000
      static let contexts = 0x5000
      static let rings = 0x8000
      static let buffers = 0xC000
    }

    private static let entries = 16
    private static let eventEntries = 32

    let memory = StorageFuzzing.Memory()
    let clock = InputFuzzing.Clock()
    private var tablet = USBTablet(state: nil)
    private var keyboard: USBKeyboard
    private(set) var controller: XHCI
    private var commandIndex = 0
    private var commandCycle: UInt32 = 1
    private var transferIndex: [Int: Int] = [:]

    init() {
      keyboard = USBKeyboard(clock: clock, state: nil)
      controller = Self.make(tablet, keyboard, memory, clock, nil)
      controller.function.setRegister(PCIRegister.command, width: 2, value: 6)
    }

    private static func make(
      _ tablet: USBTablet, _ keyboard: USBKeyboard, _ memory: any GuestMemory,
      _ clock: any DeviceClock, _ state: XHCI.State?
    ) -> XHCI {
      XHCI(
        devices: [tablet, keyboard], memory: memory, messages: VirtioFuzzing.Messages(),
        clock: clock, log: { _ in }, state: state)
    }

    func restore() {
      let state = controller.saveState()
      clock.forgetTimers()
      tablet = USBTablet(state: tablet.saveState())
      keyboard = USBKeyboard(clock: clock, state: keyboard.saveState())
      controller = Self.make(tablet, keyboard, memory, clock, state)
      controller.resume()
    }

    func write(_ offset: UInt64, _ value: UInt32) {
      controller.write(offset: offset, width: 4, value: UInt64(value))
    }

    func put(_ bytes: [UInt8], at offset: Int) {
      memory.bytes.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }

    private func putWords(_ words: [UInt32], at offset: Int) {
      put(words.flatMap { LittleEndian.bytes($0) }, at: offset)
    }

    /// A driver that does as it should up to R/S (section 4.2).
    func start() {
      put([UInt8](repeating: 0, count: Place.buffers - Place.contextArray), at: Place.contextArray)
      (commandIndex, commandCycle, transferIndex) = (0, 1, [:])
      for slot in 1...4 { putWords([UInt32(context(slot)), 0], at: Place.contextArray + slot * 8) }
      putWords([UInt32(Place.events), 0, UInt32(Self.eventEntries), 0], at: Place.segments)
      write(0x40, 2)
      write(0x78, 4)
      write(0x70, UInt32(Place.contextArray))
      write(0x74, 0)
      write(0x58, UInt32(Place.commands) | 1)
      write(0x5C, 0)
      write(0x1028, 1)
      write(0x1030, UInt32(Place.segments))
      write(0x1034, 0)
      write(0x1038, UInt32(Place.events))
      write(0x103C, 0)
      write(0x1020, 2)
      write(0x40, 5)
    }

    private func context(_ slot: Int) -> Int { Place.contexts + slot * 0x500 }

    private func ring(_ slot: Int, _ endpoint: Int) -> Int {
      Place.rings + slot * 0x800 + endpoint * 0x100
    }

    func command(_ parameter: UInt64, status: UInt32, _ control: UInt32) {
      let trb = TRB(parameter: parameter, status: status, control: control & ~1 | commandCycle)
      put(trb.bytes, at: Place.commands + commandIndex * 16)
      commandIndex += 1
      if commandIndex == Self.entries - 1 {
        let link = TRB(
          parameter: UInt64(Place.commands),
          control: TRB.control(TRB.Kind.link, TRB.Flag.toggleCycle | commandCycle))
        put(link.bytes, at: Place.commands + commandIndex * 16)
        (commandIndex, commandCycle) = (0, 1 - commandCycle)
      }
      write(0x2000, 0)
    }

    /// On a ring without links: after its last place a driver begins anew.
    func transfer(slot: Int, endpoint: Int, _ trb: TRB) {
      let key = slot * 4 + endpoint
      let index = transferIndex[key, default: 0]
      put(
        TRB(parameter: trb.parameter, status: trb.status, control: trb.control | 1).bytes,
        at: ring(slot, endpoint) + index * 16)
      transferIndex[key] = (index + 1) % Self.entries
      write(0x2000 + UInt64(slot) * 4, UInt32(endpoint))
    }

    func request(slot: Int, _ setup: UInt64) {
      let isIn = setup & 0x80 != 0
      let length = UInt32(truncatingIfNeeded: setup >> 48)
      transfer(
        slot: slot, endpoint: 1,
        TRB(
          parameter: setup, status: 8,
          control: TRB.control(TRB.Kind.setupStage, TRB.Flag.immediateData)))
      if length > 0 {
        transfer(
          slot: slot, endpoint: 1,
          TRB(
            parameter: UInt64(Place.buffers), status: length & 0x3FF,
            control: TRB.control(TRB.Kind.dataStage, isIn ? TRB.Flag.directionIn : 0)))
      }
      transfer(
        slot: slot, endpoint: 1,
        TRB(control: TRB.control(TRB.Kind.statusStage, isIn ? 0 : TRB.Flag.directionIn)))
    }

    /// Port reset, Enable Slot, Address Device, Configure Endpoint and SET_CONFIGURATION.
    func enumerate(port: Int) {
      write(0x440 + UInt64(port - 1) * 16, 0x210)
      command(0, status: 0, TRB.control(TRB.Kind.enableSlot))
      putWords([0, 3, 0, 0, 0, 0, 0, 0], at: Place.input)
      putWords([0x0800_0000, UInt32(port) << 16, 0, 0], at: Place.input + 0x20)
      putWords([0, 4 << 3 | 64 << 16, UInt32(ring(port, 1)) | 1, 0, 8], at: Place.input + 0x40)
      command(UInt64(Place.input), status: 0, TRB.control(TRB.Kind.addressDevice, slot: port))
      putWords([0, 9], at: Place.input)
      putWords([0x1800_0000], at: Place.input + 0x20)
      putWords([0, 7 << 3 | 8 << 16, UInt32(ring(port, 3)) | 1, 0, 8], at: Place.input + 0x80)
      command(
        UInt64(Place.input), status: 0, TRB.control(TRB.Kind.configureEndpoint, slot: port))
      request(slot: port, 0x0001_0900)
    }

    func takeEvents(_ count: Int) {
      write(0x1038, UInt32(Place.events + count % Self.eventEntries * 16) | 8)
    }

    func press(_ code: UInt8, isPressed: Bool) {
      keyboard.deliver(.key(KeyCode(UInt16(code)), pressed: isPressed))
    }

    func point(x: UInt8, y: UInt8, buttons: UInt8, wheel: UInt8) {
      tablet.deliver(
        .absolutePointer(
          x: UInt16(x) << 8, y: UInt16(y) << 8, buttons: PointerButtons(rawValue: buttons)))
      tablet.deliver(
        .relativePointer(
          x: 0, y: 0, wheel: Int(Int8(bitPattern: wheel)), horizontalWheel: Int(wheel),
          buttons: []))
    }

    func recovers() -> Bool {
      controller.reset()
      controller.function.setRegister(PCIRegister.command, width: 2, value: 6)
      start()
      enumerate(port: 1)
      request(slot: 1, 0x0012_0000_0100_0680)
      let descriptor = Array(memory.bytes[Place.buffers..<Place.buffers + 2])
      transfer(
        slot: 1, endpoint: 3,
        TRB(
          parameter: UInt64(Place.buffers), status: 8, control: TRB.control(TRB.Kind.normal)))
      tablet.deliver(.absolutePointer(x: 0x8642, y: 0x1234, buttons: [.left]))
      let report = Array(memory.bytes[Place.buffers..<Place.buffers + 5])
      return controller.failure == nil && descriptor == [18, 1]
        && report == [1, 0x21, 0x43, 0x1A, 0x09]
    }
  }
}
