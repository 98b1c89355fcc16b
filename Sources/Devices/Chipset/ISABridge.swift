import DeviceModel

/// Intel 82371SB (PIIX3), function 0 of device 1: the ISA bridge, of which guests
/// use the PCI interrupt routing.
package final class ISABridge: PCIInterruptRouter, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    package var function: PCIFunction.State
    package var pins: [Bool]
  }

  /// PIRQRC[A:D], datasheet 2.2.12: bit 7 disables, bits 3:0 are the ISA IRQ.
  private static let routeControl = 0x60
  /// IRQ 0, 1, 2, 8 and 13 are reserved in the route control registers.
  private static let routableInterrupts: Set<Int> = [3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15]

  /// The ISA IRQs that firmware routes PIRQA# … PIRQD# to by convention.
  package static let conventionalRoutes: [UInt8] = [10, 10, 11, 11]

  package let function: PCIFunction
  private let interrupts: [Int: any InterruptLine]
  private var pins: [Bool]
  private var asserted: Set<Int> = []

  /// - Parameter interrupts: an input of each ISA IRQ line that PIRQs may be routed
  ///   to, of their own (see `InterruptJunction`): the bridge sets levels of routable
  ///   lines only.
  package init(interrupts: [Int: any InterruptLine], state: State?) {
    self.interrupts = interrupts
    function = PCIFunction(
      name: "PIIX3 ISA bridge",
      identity: PCIIdentity(vendor: 0x8086, device: 0x7000, classCode: 0x060100))
    function.describe {
      $0.set(PCIRegister.command, width: 2, value: 0x0007)
      $0.set(PCIRegister.status, width: 2, value: 0x0200)
      $0.set(0x4C, width: 1, value: 0x4D)
      $0.allowWrites(0x4C, width: 1, mask: 0xFF)
      $0.set(0x4E, width: 2, value: 0x0003)
      $0.allowWrites(0x4E, width: 2, mask: 0x01FF)
      $0.set(Self.routeControl, width: 4, value: 0x8080_8080)
      $0.allowWrites(Self.routeControl, width: 4, mask: 0x8F8F_8F8F)
      $0.set(0x69, width: 1, value: 0x02)
      $0.allowWrites(0x69, width: 1, mask: 0xFE)
      $0.set(0xA0, width: 1, value: 0x08)
      $0.allowWrites(0xA0, width: 1, mask: 0xFF)
    }
    function.restore(state?.function)
    let restored = state?.pins ?? []
    pins = restored.count == 128 ? restored : Array(repeating: false, count: 128)
    function.onConfigurationWrite = { [weak self] in
      if $0.overlaps(Self.routeControl..<Self.routeControl + 4) { self?.route() }
    }
    route()
  }

  package func saveState() -> State {
    State(function: function.saveState(), pins: pins)
  }

  package func reset() {
    function.reset()
    route()
  }

  package func setInterrupt(device: Int, pin: Int, asserted: Bool) {
    pins[(device & 31) * 4 + (pin & 3)] = asserted
    route()
  }

  /// The PIRQ (0 for PIRQA#) that pin `pin` of device `device` is wired to.
  package static func interruptRequest(device: Int, pin: Int) -> Int {
    (device + pin + 3) & 3
  }

  private func route() {
    var wanted: Set<Int> = []
    for index in pins.indices where pins[index] {
      let request = Self.interruptRequest(device: index / 4, pin: index % 4)
      let control = function.configuration.bytes[Self.routeControl + request]
      let line = Int(control & 0x0F)
      if control & 0x80 == 0 && Self.routableInterrupts.contains(line) { wanted.insert(line) }
    }
    let before = asserted
    asserted = wanted
    for line in before.subtracting(wanted) { interrupts[line]?.setLevel(false) }
    for line in wanted.subtracting(before) { interrupts[line]?.setLevel(true) }
  }
}
