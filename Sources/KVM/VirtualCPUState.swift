import CKVM

extension VirtualCPU {
  /// Everything the kernel knows about a vCPU. Parts are kernel structures.
  public struct State: Codable, Sendable, Equatable {
    public var version = 1
    public var registers: [UInt8]
    public var specialRegisters: [UInt8]
    /// The XSAVE area; holds the x87, SSE and later states.
    public var extendedState: [UInt8]
    public var extendedControlRegisters: [UInt8]
    public var modelSpecificRegisters: [ModelSpecificRegister]
    public var localAPIC: [UInt8]
    public var events: [UInt8]
    public var multiprocessing: UInt32
    public var debugRegisters: [UInt8]
  }

  public struct ModelSpecificRegister: Codable, Sendable, Hashable {
    public var index: UInt32
    public var value: UInt64

    public init(index: UInt32, value: UInt64) {
      self.index = index
      self.value = value
    }
  }

  /// The vCPU's state. The last exit's access must be completed.
  public func saveState() throws(KVMError) -> State {
    var events = kvm_vcpu_events()
    var apic = kvm_lapic_state()
    var control = kvm_xcrs()
    var debug = kvm_debugregs()
    // MP state first: reading it makes the kernel accept a pending INIT or SIPI.
    let multiprocessing = try multiprocessingState()
    try checked(ckvm_get_vcpu_events(descriptor.raw, &events), "save events")
    try checked(ckvm_get_lapic(descriptor.raw, &apic), "save the local APIC")
    try checked(ckvm_get_xcrs(descriptor.raw, &control), "save XCR0")
    try checked(ckvm_get_debug_registers(descriptor.raw, &debug), "save debug registers")
    return State(
      registers: bytes(of: try registers()),
      specialRegisters: bytes(of: try specialRegisters()),
      extendedState: try extendedState(), extendedControlRegisters: bytes(of: control),
      modelSpecificRegisters: try modelSpecificRegisters(), localAPIC: bytes(of: apic),
      events: bytes(of: events), multiprocessing: multiprocessing,
      debugRegisters: bytes(of: debug))
  }

  /// Gives a vCPU, whose CPUID is set, a saved state.
  public func restore(_ state: State) throws(KVMError) {
    guard let registers = structure(kvm_regs.self, from: state.registers),
      let special = structure(kvm_sregs.self, from: state.specialRegisters),
      let control = structure(kvm_xcrs.self, from: state.extendedControlRegisters),
      let debug = structure(kvm_debugregs.self, from: state.debugRegisters),
      var apic = structure(kvm_lapic_state.self, from: state.localAPIC),
      var events = structure(kvm_vcpu_events.self, from: state.events),
      state.extendedState.count >= MemoryLayout<kvm_xsave>.size
    else { throw badState("state of vCPU \(identifier)") }
    var control2 = control
    var debug2 = debug
    try set(registers)
    // XCR0 before XSAVE, which may hold states it enables; SREGS (APIC base, EFER)
    // before the MSRs and the local APIC, whose timer mode the TSC deadline needs.
    try checked(ckvm_set_xcrs(descriptor.raw, &control2), "restore XCR0")
    try checked(ckvm_set_xsave(descriptor.raw, state.extendedState), "restore extended state")
    try set(special)
    try set(state.modelSpecificRegisters)
    try checked(ckvm_set_lapic(descriptor.raw, &apic), "restore the local APIC")
    try set(state.modelSpecificRegisters.filter { $0.index == Self.tscDeadline })
    try checked(ckvm_set_debug_registers(descriptor.raw, &debug2), "restore debug registers")
    try setMultiprocessingState(state.multiprocessing)
    try checked(ckvm_set_vcpu_events(descriptor.raw, &events), "restore events")
  }

  private static var tscDeadline: UInt32 { 0x6E0 }

  public func registers() throws(KVMError) -> kvm_regs {
    var registers = kvm_regs()
    try checked(ckvm_get_regs(descriptor.raw, &registers), "read registers")
    return registers
  }

  public func set(_ registers: kvm_regs) throws(KVMError) {
    var registers = registers
    try checked(ckvm_set_regs(descriptor.raw, &registers), "set registers")
  }

  public func specialRegisters() throws(KVMError) -> kvm_sregs {
    var registers = kvm_sregs()
    try checked(ckvm_get_sregs(descriptor.raw, &registers), "read special registers")
    return registers
  }

  public func set(_ registers: kvm_sregs) throws(KVMError) {
    var registers = registers
    try checked(ckvm_set_sregs(descriptor.raw, &registers), "set special registers")
  }

  public func floatingPoint() throws(KVMError) -> kvm_fpu {
    var state = kvm_fpu()
    try checked(ckvm_get_fpu(descriptor.raw, &state), "read the floating-point state")
    return state
  }

  public func set(_ state: kvm_fpu) throws(KVMError) {
    var state = state
    try checked(ckvm_set_fpu(descriptor.raw, &state), "set the floating-point state")
  }

  public func localAPIC() throws(KVMError) -> kvm_lapic_state {
    var state = kvm_lapic_state()
    try checked(ckvm_get_lapic(descriptor.raw, &state), "read the local APIC")
    return state
  }

  public func set(_ state: kvm_lapic_state) throws(KVMError) {
    var state = state
    try checked(ckvm_set_lapic(descriptor.raw, &state), "set the local APIC")
  }

  /// KVM_MP_STATE_*: 0 runnable, 1 waits for INIT, 3 halted.
  public func multiprocessingState() throws(KVMError) -> UInt32 {
    var state = kvm_mp_state()
    try checked(ckvm_get_mp_state(descriptor.raw, &state), "read the MP state")
    return state.mp_state
  }

  public func setMultiprocessingState(_ value: UInt32) throws(KVMError) {
    var state = kvm_mp_state(mp_state: value)
    try checked(ckvm_set_mp_state(descriptor.raw, &state), "set the MP state")
  }

  private func extendedState() throws(KVMError) -> [UInt8] {
    let size = machine.system.value(of: .xsave2)
    guard size > MemoryLayout<kvm_xsave>.size else {
      var state = kvm_xsave()
      try checked(ckvm_get_xsave(descriptor.raw, &state), "save extended state")
      return bytes(of: state)
    }
    var area = [UInt8](repeating: 0, count: size)
    try checked(ckvm_get_xsave2(descriptor.raw, &area), "save extended state")
    return area
  }

  /// All that this KVM lets one read.
  public func modelSpecificRegisters() throws(KVMError) -> [ModelSpecificRegister] {
    var remaining = ArraySlice(try machine.system.modelSpecificRegisters())
    var result: [ModelSpecificRegister] = []
    while !remaining.isEmpty {
      var entries = remaining.map { kvm_msr_entry(index: $0, reserved: 0, data: 0) }
      let count = Int(
        try checked(
          ckvm_get_msrs(descriptor.raw, &entries, UInt32(entries.count)),
          "read model-specific registers"))
      result += entries.prefix(count).map {
        ModelSpecificRegister(index: $0.index, value: $0.data)
      }
      // The kernel stops at one that it lists but does not have: leave that out.
      remaining = remaining.dropFirst(count + 1)
    }
    return result
  }

  /// Sets them in order; one that this KVM refuses is left out.
  public func set(_ registers: [ModelSpecificRegister]) throws(KVMError) {
    var remaining = registers[...]
    while !remaining.isEmpty {
      let entries = remaining.map { kvm_msr_entry(index: $0.index, reserved: 0, data: $0.value) }
      let count = Int(
        try checked(
          ckvm_set_msrs(descriptor.raw, entries, UInt32(entries.count)),
          "set model-specific registers"))
      remaining = remaining.dropFirst(count + 1)
    }
  }

  /// The guest-physical address behind a guest-linear one; `nil` when unmapped.
  public func translate(_ linear: UInt64) throws(KVMError) -> UInt64? {
    var translation = kvm_translation()
    translation.linear_address = linear
    try checked(ckvm_translate(descriptor.raw, &translation), "translate an address")
    return translation.valid == 0 ? nil : translation.physical_address
  }

  /// Whether a non-maskable interrupt at pin LINT1 would reach it now: it was started,
  /// and the local APIC is switched off, which makes the pin NMI, or has its LVT entry
  /// let NMIs through (Intel SDM volume 3, 11.4.3 and 11.5.1).
  public func takesNMI() throws(KVMError) -> Bool {
    let state = try multiprocessingState()
    guard state == UInt32(KVM_MP_STATE_RUNNABLE) || state == UInt32(KVM_MP_STATE_HALTED) else {
      return false
    }
    guard try specialRegisters().apic_base & 1 << 11 != 0 else { return true }
    let registers = bytes(of: try localAPIC())
    func register(_ offset: Int) -> UInt32 {
      guard offset + 4 <= registers.count else { return 0 }
      return registers[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
    let entry = register(0x360)
    return register(0xF0) & 1 << 8 != 0 && entry & 1 << 16 == 0 && entry >> 8 & 7 == 4
  }

  public func injectNMI() throws(KVMError) {
    try checked(ckvm_inject_nmi(descriptor.raw), "inject an NMI")
  }
}
