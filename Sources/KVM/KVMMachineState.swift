import CKVM

extension KVMMachine {
  /// The in-kernel devices: both PICs, IOAPIC, interval timer, clock.
  public struct State: Codable, Sendable, Equatable {
    public var version = 1
    public var masterPIC: [UInt8]
    public var slavePIC: [UInt8]
    public var ioAPIC: [UInt8]
    public var timer: [UInt8]
    /// Nanoseconds of the paravirtual clock.
    public var clock: UInt64
  }

  public func saveState() throws(KVMError) -> State {
    var timer = kvm_pit_state2()
    try checked(ckvm_get_pit(descriptor.raw, &timer), "save the interval timer")
    var clock = kvm_clock_data()
    try checked(ckvm_get_clock(descriptor.raw, &clock), "save the clock")
    return State(
      masterPIC: try controller(0), slavePIC: try controller(1), ioAPIC: try controller(2),
      timer: bytes(of: timer), clock: clock.clock)
  }

  public func restore(_ state: State) throws(KVMError) {
    guard var timer = structure(kvm_pit_state2.self, from: state.timer) else {
      throw badState("interval timer")
    }
    for part in [state.masterPIC, state.slavePIC, state.ioAPIC] {
      guard var chip = structure(kvm_irqchip.self, from: part) else {
        throw badState("interrupt controller")
      }
      try checked(ckvm_set_irqchip(descriptor.raw, &chip), "restore an interrupt controller")
    }
    try checked(ckvm_set_pit(descriptor.raw, &timer), "restore the interval timer")
    var clock = kvm_clock_data()
    clock.clock = state.clock
    try checked(ckvm_set_clock(descriptor.raw, &clock), "restore the clock")
  }

  private func controller(_ number: UInt32) throws(KVMError) -> [UInt8] {
    var chip = kvm_irqchip()
    chip.chip_id = number
    try checked(ckvm_get_irqchip(descriptor.raw, &chip), "save an interrupt controller")
    return bytes(of: chip)
  }
}
