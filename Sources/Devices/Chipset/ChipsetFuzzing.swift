import DeviceModel

/// Drives what is at fixed ports with an arbitrary byte string, as a guest with bad intentions
/// would, while the host does its part. Shared by the fuzz targets and the tests.
package enum ChipsetFuzzing {
  package enum Kind: CaseIterable, Sendable {
    case serial, clock, powerManagement, systemControl
  }

  /// Interprets `program` as port accesses, the host's acts and time, and saves and restores
  /// the devices on the way.
  ///
  /// - Returns: whether no register ever had more bits than were read, and at the end devices
  ///   that are restored read as those do that they were saved from.
  package static func run(_ kind: Kind, _ program: [UInt8]) -> Bool {
    let bench = Bench(kind)
    var rest = program[...]
    func next() -> UInt8 { rest.popFirst() ?? 0 }
    func word() -> UInt64 { (0..<4).reduce(0) { value, _ in value << 8 | UInt64(next()) } }
    while let operation = rest.popFirst() {
      let port = bench.ports[Int(operation >> 3) % bench.ports.count]
      let width = min(1 << Int(operation >> 6 & 3), port.target.maximumAccessWidth)
      switch operation & 7 {
      case 0, 1, 2:
        port.target.write(offset: UInt64(next()) % port.size, width: width, value: word())
      case 3: bench.read(port, UInt64(next()) % port.size, width)
      case 4: bench.act(next(), next())
      case 5: bench.clock.advance(by: UInt64(next()) << UInt64(next() % 40))
      case 6: bench.restore()
      default: bench.reset()
      }
    }
    return bench.isNarrow && bench.readsAlike()
  }
}

private struct FuzzedPort {
  let target: any BusTarget
  let size: UInt64
}

/// The devices of one kind.
private struct FuzzedDevices {
  let ports: [FuzzedPort]
  let act: (UInt8, UInt8) -> Void
  let reset: () -> Void
  let again: () -> FuzzedDevices
}

private final class Bench {
  let clock = InputFuzzing.Clock()
  private let host = FuzzedHost()
  private var devices: FuzzedDevices
  private(set) var isNarrow = true

  init(_ kind: ChipsetFuzzing.Kind) {
    let (clock, host) = (clock, host)
    switch kind {
    case .serial: devices = Self.serial(clock, host, nil)
    case .clock: devices = Self.realTimeClock(clock, host, nil)
    case .powerManagement: devices = Self.powerManagement(clock, host, nil)
    case .systemControl: devices = Self.systemControl(host, nil)
    }
  }

  var ports: [FuzzedPort] { devices.ports }

  func act(_ what: UInt8, _ value: UInt8) { devices.act(what, value) }
  func reset() { devices.reset() }

  func restore() {
    clock.forgetTimers()
    devices = devices.again()
  }

  @discardableResult
  func read(_ port: FuzzedPort, _ offset: UInt64, _ width: Int) -> UInt64 {
    let value = port.target.read(offset: offset, width: width)
    if width < 8, value >> UInt64(width * 8) != 0 { isNarrow = false }
    return value
  }

  func readsAlike() -> Bool {
    let saved = devices.ports
    let restored = devices.again().ports
    return zip(saved, restored).allSatisfy { first, second in
      (0..<first.size).allSatisfy { read(first, $0, 1) == read(second, $0, 1) }
    }
  }

  private static func serial(
    _ clock: InputFuzzing.Clock, _ host: FuzzedHost, _ state: UART16550.State?
  ) -> FuzzedDevices {
    let uart = UART16550(interrupt: host, backend: host, clock: clock, state: state)
    return FuzzedDevices(
      ports: [FuzzedPort(target: uart, size: 8)],
      act: { what, value in
        host.capacity = Int(what)
        let room = min(host.room?() ?? 0, Int(value))
        host.onReceive?(Array(repeating: value, count: room))
      }, reset: { uart.reset() }, again: { serial(clock, host, uart.saveState()) })
  }

  private static func realTimeClock(
    _ clock: InputFuzzing.Clock, _ host: FuzzedHost, _ state: RealTimeClock.State?
  ) -> FuzzedDevices {
    let device = RealTimeClock(interrupt: host, clock: clock, nvram: [0x40: 0x5A], state: state)
    return FuzzedDevices(
      ports: [FuzzedPort(target: device, size: 2)], act: { _, _ in },
      reset: { device.reset() }, again: { realTimeClock(clock, host, device.saveState()) })
  }

  private static func powerManagement(
    _ clock: InputFuzzing.Clock, _ host: FuzzedHost, _ state: PowerManagement.State?
  ) -> FuzzedDevices {
    let device = PowerManagement(interrupt: host, clock: clock, machine: host, state: state)
    return FuzzedDevices(
      ports: [
        FuzzedPort(target: device, size: 64),
        FuzzedPort(target: ConfigurationPort(device.function), size: 256),
      ],
      act: { what, value in
        switch what & 3 {
        case 0: device.pressPowerButton()
        case 1: device.pressSleepButton()
        default: device.raise(generalEvent: Int(value))
        }
      }, reset: { device.reset() },
      again: { powerManagement(clock, host, device.saveState()) })
  }

  private static func systemControl(
    _ host: FuzzedHost,
    _ state: (ResetControl.State, SystemControlPortA.State, SystemControlPortB.State)?
  ) -> FuzzedDevices {
    let reset = ResetControl(machine: host, state: state?.0)
    let first = SystemControlPortA(machine: host, state: state?.1)
    let second = SystemControlPortB(timer: host, speaker: nil, state: state?.2)
    let targets: [any BusTarget] = [reset, first, second]
    return FuzzedDevices(
      ports: targets.map { FuzzedPort(target: $0, size: 1) },
      act: { what, _ in host.output = what & 1 != 0 },
      reset: {
        reset.reset()
        first.reset()
        second.reset()
      },
      again: {
        systemControl(host, (reset.saveState(), first.saveState(), second.saveState()))
      })
  }
}

/// Configuration space by itself.
private final class ConfigurationPort: BusTarget {
  let maximumAccessWidth = 4
  private let function: PCIFunction

  init(_ function: PCIFunction) { self.function = function }

  func read(offset: UInt64, width: Int) -> UInt64 {
    UInt64(function.readConfiguration(Int(offset), width: width))
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    function.writeConfiguration(
      Int(offset), width: width, value: UInt32(truncatingIfNeeded: value))
  }
}

/// All that is around the devices.
private final class FuzzedHost: InterruptLine, CharacterBackend, MachineControl, SpeakerTimer {
  var capacity = 16
  var onReceive: (([UInt8]) -> Void)?
  var room: (() -> Int)?
  var gate = false
  var output = false
  let reload: UInt16 = 1000

  func setLevel(_ asserted: Bool) {}
  func write(_ bytes: [UInt8]) -> Int { min(bytes.count, capacity) }
  func hasRoom() {}
  func requestReset(_ cause: ResetCause) {}
  func requestPowerOff() {}
  func reportRefusedSleep(type: UInt16) {}
}
