import DeviceModel

/// Drives what is at fixed ports with an arbitrary byte string, as a guest with bad intentions
/// would, while the host does its part. Shared by the fuzz targets and the tests.
package enum ChipsetFuzzing {
  package enum Kind: CaseIterable, Sendable {
    case serial, clock, powerManagement, systemControl, pci
  }

  /// Interprets `program` as port accesses, the host's acts and time, and saves and restores
  /// the devices on the way.
  ///
  /// - Returns: whether no region was in the guest's address space twice, nor left it without
  ///   being there, and at the end devices that are restored read as those do that they were
  ///   saved from.
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
      case 3: _ = port.target.read(offset: UInt64(next()) % port.size, width: width)
      case 4: bench.act(next(), next())
      case 5: bench.clock.advance(by: UInt64(next()) << UInt64(next() % 40))
      case 6: bench.restore()
      default: bench.reset()
      }
    }
    return bench.isSound && bench.readsAlike()
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

  init(_ kind: ChipsetFuzzing.Kind) {
    let (clock, host) = (clock, host)
    switch kind {
    case .serial: devices = Self.serial(clock, host, nil)
    case .clock: devices = Self.realTimeClock(clock, host, nil)
    case .powerManagement: devices = Self.powerManagement(clock, host, nil)
    case .systemControl: devices = Self.systemControl(host, nil)
    case .pci: devices = Self.pci(host, nil)
    }
  }

  var ports: [FuzzedPort] { devices.ports }
  var isSound: Bool { host.isSound }

  func act(_ what: UInt8, _ value: UInt8) { devices.act(what, value) }
  func reset() { devices.reset() }

  func restore() {
    clock.forgetTimers()
    host.forget()
    devices = devices.again()
  }

  func readsAlike() -> Bool {
    let saved = devices.ports
    host.forget()
    let restored = devices.again().ports
    return zip(saved, restored).allSatisfy { first, second in
      (0..<first.size).allSatisfy {
        // The bus takes the bits that it asked for.
        UInt8(truncatingIfNeeded: first.target.read(offset: $0, width: 1))
          == UInt8(truncatingIfNeeded: second.target.read(offset: $0, width: 1))
      }
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

  private struct PCIState {
    let host: PCIHost.State
    let bridge: HostBridge.State
    let isa: ISABridge.State
    let card: PCIFunction.State
  }

  private static func pci(_ host: FuzzedHost, _ state: PCIState?) -> FuzzedDevices {
    let isa = ISABridge(interrupts: [5: host, 10: host, 11: host], state: state?.isa)
    let bridge = HostBridge(shadow: host, state: state?.bridge)
    let root = PCIHost(addressSpace: host, interruptRouter: isa, state: state?.host)
    let card = PCIFunction(
      name: "card", identity: PCIIdentity(vendor: 1, device: 2, classCode: 0, interruptPin: 1))
    let registers = ResetControl(machine: host, state: nil)
    card.addBAR(0, size: 32, .io(registers))
    card.addBAR(1, size: 4096, .memory(registers))
    card.addBAR(2, size: 1 << 20, prefetchable: true, is64Bit: true, .memory(registers))
    card.addROM([0x55, 0xAA, 1])
    _ = card.addCapability(9, [4, 0], writable: [0, 0xFF])
    card.restore(state?.card)
    for (index, function) in [bridge.function, isa.function, card].enumerated() {
      _ = root.insert(function, at: PCISlot(device: index))
    }
    return FuzzedDevices(
      ports: [FuzzedPort(target: root, size: 8)],
      act: { what, value in
        isa.setInterrupt(device: Int(what), pin: Int(value), asserted: value & 0x80 != 0)
      },
      reset: {
        for function in [bridge.function, isa.function, card] { function.reset() }
        root.reset()
      },
      again: {
        let saved = PCIState(
          host: root.saveState(), bridge: bridge.saveState(), isa: isa.saveState(),
          card: card.saveState())
        return pci(host, saved)
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
private final class FuzzedHost: InterruptLine, CharacterBackend, MachineControl, SpeakerTimer,
  PCIAddressSpace, ShadowControl
{
  var capacity = 16
  var onReceive: (([UInt8]) -> Void)?
  var room: (() -> Int)?
  var gate = false
  var output = false
  let reload: UInt16 = 1000
  private var mapped: Set<String> = []
  private(set) var isSound = true

  func forget() { mapped = [] }
  func setLevel(_ asserted: Bool) {}
  func write(_ bytes: [UInt8]) -> Int { min(bytes.count, capacity) }
  func hasRoom() {}
  func requestReset(_ cause: ResetCause) {}
  func requestPowerOff() {}
  func reportRefusedSleep(type: UInt16) {}
  func setShadow(_ segments: [ShadowSegment]) {}

  func map(_ region: PCIRegion, at address: UInt64) -> Bool {
    if !mapped.insert(region.name).inserted { isSound = false }
    return true
  }

  func unmap(_ region: PCIRegion, at address: UInt64) {
    if mapped.remove(region.name) == nil { isSound = false }
  }
}
