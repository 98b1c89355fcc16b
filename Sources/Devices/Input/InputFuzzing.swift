import DeviceModel

/// Drives the keyboard controller and the VMware pointer with an arbitrary byte
/// string, as a guest and a viewer with bad intentions would. Shared by the fuzz
/// target and the tests.
package enum InputFuzzing {
  /// What must hold after any program.
  package struct Outcome: Sendable {
    /// Both interrupt lines were never up together, and only with a full buffer.
    package var linesAgree = true
    /// Bytes that the guest could read at the end; a bounded number.
    package var left = 0
  }

  /// Interprets `program` as port accesses, input events and time, and saves and
  /// restores the devices on the way.
  @discardableResult
  package static func run(_ program: [UInt8]) -> Outcome {
    let bench = Bench()
    defer { bench.dismantle() }
    var outcome = Outcome()
    var rest = program[...]
    func next() -> UInt8 { rest.popFirst() ?? 0 }
    func word() -> UInt16 { UInt16(next()) << 8 | UInt16(next()) }
    while let operation = rest.popFirst() {
      switch operation & 15 {
      case 0...2: bench.controller.commandPort.write(offset: 0, width: 1, value: UInt64(next()))
      case 3...5: bench.controller.dataPort.write(offset: 0, width: 1, value: UInt64(next()))
      case 6: _ = bench.controller.dataPort.read(offset: 0, width: 1)
      case 7: _ = bench.drain(limit: 64)
      case 8:
        bench.deliver(.key(KeyCode(word() & 0xE17F), pressed: operation & 0x80 != 0))
      case 9:
        bench.deliver(
          .absolutePointer(x: word(), y: word(), buttons: PointerButtons(rawValue: next())))
      case 10:
        let scale = operation & 0x80 != 0 ? Int.max / 256 : 1
        bench.deliver(
          .relativePointer(
            x: Int(Int8(bitPattern: next())) &* scale, y: Int(Int8(bitPattern: next())) &* scale,
            wheel: Int(Int8(bitPattern: next())) &* scale, horizontalWheel: 0,
            buttons: PointerButtons(rawValue: next())))
      case 11: bench.clock.advance(by: UInt64(next()) * 10_000_000)
      case 12: bench.restore()
      case 13: bench.controller.setScanoutSize(width: Int(word()), height: Int(word()))
      case 14:
        bench.call(command: UInt32(next()), argument: word(), isMagic: operation & 0x80 == 0)
      default: if operation & 0xF0 == 0xF0 { bench.controller.reset() }
      }
      outcome.linesAgree = outcome.linesAgree && bench.linesAgree
    }
    outcome.left = bench.drain(limit: 10_000)
    return outcome
  }

  private final class Bench: CallingProcessor {
    private let machine = NoMachine()
    let clock = Clock()
    let keyboardLine = Line()
    let mouseLine = Line()
    private(set) var controller: I8042
    private var backdoor: VMwareBackdoor?
    private var registers = CallingRegisters()

    init() {
      controller = I8042(
        machine: machine, clock: clock, keyboardInterrupt: keyboardLine,
        auxiliaryInterrupt: mouseLine, state: nil)
      backdoor = VMwareBackdoor(
        processor: self, nudge: { [weak self] in self?.nudge() }, state: nil)
    }

    /// The pointer holds on to who reads registers for it.
    func dismantle() { backdoor = nil }

    private func nudge() { controller.nudgeMouse() }

    func readRegisters() -> CallingRegisters { registers }
    func writeRegisters(_ registers: CallingRegisters) { self.registers = registers }

    func restore() {
      clock.forgetTimers()
      controller = I8042(
        machine: machine, clock: clock, keyboardInterrupt: keyboardLine,
        auxiliaryInterrupt: mouseLine, state: controller.saveState())
      backdoor = VMwareBackdoor(
        processor: self, nudge: { [weak self] in self?.nudge() }, state: backdoor?.saveState())
    }

    func deliver(_ event: InputEvent) {
      if let backdoor, backdoor.accepts(event) { return backdoor.deliver(event) }
      controller.deliver(event)
    }

    func call(command: UInt32, argument: UInt16, isMagic: Bool) {
      // The commands of the pointer take these words.
      let arguments: [UInt32] = [0x4541_4552, 0x5342_4152, 0x4C45_5252, 0xF5, 1, 4, 6]
      registers = CallingRegisters(
        eax: isMagic ? 0x564D_5868 : 0,
        ebx: argument < 7 ? arguments[Int(argument)] : UInt32(argument),
        ecx: command & 1 == 0 ? 0x27 + command & 3 : command)
      _ = backdoor?.read(offset: 0, width: 4)
    }

    func drain(limit: Int) -> Int {
      var count = 0
      while count < limit, controller.commandPort.read(offset: 0, width: 1) & 1 != 0 {
        _ = controller.dataPort.read(offset: 0, width: 1)
        count += 1
      }
      return count
    }

    var linesAgree: Bool {
      let isFull = controller.commandPort.read(offset: 0, width: 1) & 1 != 0
      return !(keyboardLine.level && mouseLine.level)
        && (isFull || !keyboardLine.level && !mouseLine.level)
    }
  }

  private final class NoMachine: MachineControl {
    func requestReset(_ cause: ResetCause) {}
    func requestPowerOff() {}
    func reportRefusedSleep(type: UInt16) {}
  }

  private final class Line: InterruptLine {
    private(set) var level = false
    func setLevel(_ asserted: Bool) { level = asserted }
  }

  final class Clock: DeviceClock {
    private final class Timer: DeviceTimer {
      var deadline: UInt64?
      let fire: () -> Void

      init(_ fire: @escaping () -> Void) { self.fire = fire }

      func arm(at deadline: UInt64) { self.deadline = deadline }
      func cancel() { deadline = nil }
    }

    private(set) var now: UInt64 = 0
    let wallClock: (seconds: Int64, nanoseconds: UInt32) = (0, 0)
    private var timers: [Timer] = []

    func makeTimer(_ fire: @escaping () -> Void) -> any DeviceTimer {
      let timer = Timer(fire)
      timers.append(timer)
      return timer
    }

    func forgetTimers() { timers = [] }

    func advance(by nanoseconds: UInt64) {
      now += nanoseconds
      for timer in timers {
        guard let deadline = timer.deadline, deadline <= now else { continue }
        timer.deadline = nil
        timer.fire()
      }
    }
  }
}
