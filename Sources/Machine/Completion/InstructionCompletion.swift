import CKVM
import CZydis

/// Carries out the instructions that some hosts' KVM cannot emulate (README, Hosts).
///
/// Pure: it sees registers and a port to memory and state, and changes nothing before an
/// instruction has succeeded. Instructions are decoded by Zydis; what each does follows
/// the SDM's description of its operation. Whether CPUID shows an instruction to the
/// guest is not asked: a guest that uses one that was hidden finds it working.
package enum InstructionCompletion {
  typealias Handler = @Sendable (CompletionContext) throws(CompletionStop) -> Void

  package enum Outcome {
    /// Done; the context has the registers, and what follows.
    case completed(CompletionContext)
    /// To be delivered, with registers as they were.
    case exception(ProcessorException)
    /// `mnemonic` is `nil` for bytes that are no instruction.
    case notCovered(mnemonic: String?)
    case host(String)
  }

  static let handlers: [UInt16: Handler] = {
    let families = [
      integerHandlers, bitHandlers, systemHandlers, descriptorHandlers, transferHandlers,
      extendedStateHandlers, floatingPointHandlers, x87Handlers, environmentHandlers,
      vectorHandlers,
    ]
    return families.reduce(into: [:]) { all, family in
      for (mnemonic, handler) in family { all[UInt16(mnemonic.rawValue)] = handler }
    }
  }()

  /// Whether the decoder is installed.
  static var isAvailable: Bool { czydis_is_available() != 0 }

  /// - Parameter bytes: from RIP on; more than the instruction has do no harm.
  package static func complete(
    _ bytes: [UInt8], _ state: ProcessorState, _ port: any CompletionPort
  ) -> Outcome {
    var instruction = czydis_instruction()
    switch czydis_decode(Int32(state.codeBits), bytes, bytes.count, &instruction) {
    case Int32(CZYDIS_WHOLE.rawValue): break
    case Int32(CZYDIS_TRUNCATED.rawValue): return .notCovered(mnemonic: nil)
    default: return .exception(.invalidOpcode)
    }
    let mnemonic = czydis_mnemonic_name(instruction.mnemonic).map { String(cString: $0) }
    guard let handler = handlers[instruction.mnemonic] else {
      return .notCovered(mnemonic: mnemonic)
    }
    let context = CompletionContext(state, instruction, port)
    do {
      try handler(context)
      try context.commit()
    } catch {
      switch error {
      case .fault(let exception): return .exception(exception)
      case .notCovered: return .notCovered(mnemonic: mnemonic)
      case .host(let problem): return .host(problem)
      }
    }
    // A single step traps after the instruction (SDM vol. 3, 18.3.1.4).
    if state.flags.contains(.trap), context.softwareInterrupt == nil, context.trap == nil {
      context.trap = .debug
    }
    if !context.keepsResumeFlag { context.state.flags.remove(.resume) }
    return .completed(context)
  }
}
