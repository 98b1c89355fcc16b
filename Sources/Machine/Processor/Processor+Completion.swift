import CKVM
import KVM

extension Processor {
  /// Does what KVM's emulator could not: carries out the instruction at RIP, or delivers
  /// the exception that it raises. Device lock held.
  ///
  /// - Returns: why the guest cannot go on; `nil` when it can.
  func completeInstruction(_ error: VirtualCPU.InternalError) -> String? {
    guard error.isEmulationFailure else { return describe(error) }
    do {
      let state = ProcessorState(
        general: try cpu.registers(), special: try cpu.specialRegisters())
      guard let bytes = instructionBytes(state) ?? error.instruction.nonEmpty else {
        return describe(error, "guest code runs where there is no memory")
      }
      guard InstructionCompletion.isAvailable else {
        return describe(
          error, "completing it takes Zydis: install the package libzydis4.0 and reset the guest")
      }
      switch InstructionCompletion.complete(bytes, state, bridge) {
      case .completed(let context): try deliver(context)
      case .exception(let exception): try inject(exception, shadowEnds: false)
      case .notCovered(let mnemonic):
        let name = mnemonic.map { "'\($0)' is not completed here" }
        return describe(error, bytes: bytes, name ?? "it is unknown")
      case .host(let problem): return describe(error, bytes: bytes, problem)
      }
      return nil
    } catch {
      return "an instruction could not be completed: \(error)"
    }
  }

  /// What is at CS:RIP, as far as it is mapped memory. The exit may have fewer bytes.
  private func instructionBytes(_ state: ProcessorState) -> [UInt8]? {
    let memory = LinearMemory(state: state, port: bridge)
    let start = state.is64Bit ? state.general.rip : state.special.cs.base &+ state.general.rip
    var bytes: [UInt8] = []
    while bytes.count < Self.longestInstruction {
      let address = start &+ UInt64(bytes.count)
      let count = min(Self.longestInstruction - bytes.count, 4096 - Int(address & 4095))
      guard let physical = try? memory.translate(address, LinearMemory.Access()),
        let piece = bridge.fetch(physical, count: count)
      else { break }
      bytes += piece
    }
    return bytes.nonEmpty
  }

  private static var longestInstruction: Int { 15 }

  private func deliver(_ context: CompletionContext) throws {
    try cpu.set(context.state.general)
    if context.state.specialChanged { try cpu.set(context.state.special) }
    var events = try cpu.events()
    // The instruction is over, and with it what MOV SS or STI before it put off.
    events.flags |= UInt32(KVM_VCPUEVENT_VALID_SHADOW)
    events.interrupt.shadow = 0
    if context.unmasksNMI { events.nmi.masked = 0 }
    if let vector = context.softwareInterrupt {
      // Its gate was checked, so it goes the way of those that come from outside.
      events.interrupt.injected = 1
      events.interrupt.nr = vector
      events.interrupt.soft = 0
    }
    try cpu.set(events)
    if let trap = context.trap { try inject(trap, shadowEnds: true) }
  }

  private func inject(_ exception: ProcessorException, shadowEnds: Bool) throws {
    if let address = exception.address {
      var special = try cpu.specialRegisters()
      special.cr2 = address
      try cpu.set(special)
    }
    if exception == .debug { try markSingleStep() }
    var events = try cpu.events()
    events.exception.injected = 1
    events.exception.nr = exception.vector
    events.exception.has_error_code = exception.errorCode == nil ? 0 : 1
    events.exception.error_code = exception.errorCode ?? 0
    if shadowEnds {
      events.flags |= UInt32(KVM_VCPUEVENT_VALID_SHADOW)
      events.interrupt.shadow = 0
    }
    try cpu.set(events)
  }

  /// DR6.BS tells the handler what the trap was.
  private func markSingleStep() throws {
    var debug = try cpu.debugRegisters()
    debug.dr6 |= 1 << 14
    try cpu.set(debug)
  }

  private func describe(
    _ error: VirtualCPU.InternalError, bytes: [UInt8] = [], _ detail: String? = nil
  ) -> String {
    let place = (try? cpu.registers()).map { " at \(hexadecimal($0.rip))" } ?? ""
    let mode = (try? cpu.specialRegisters()).map { ", CPL \($0.cs.selector & 3)" } ?? ""
    let error = bytes.isEmpty ? error : error.with(instruction: bytes)
    return "\(error)\(place)\(mode)" + (detail.map { ": \($0)" } ?? "")
  }
}

extension Array {
  fileprivate var nonEmpty: Self? { isEmpty ? nil : self }
}
