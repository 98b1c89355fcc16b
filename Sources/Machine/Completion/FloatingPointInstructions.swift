import CZydis

extension InstructionCompletion {
  /// The x87 instructions that set it up and ask it how it is.
  static let floatingPointHandlers: [(ZydisMnemonic, Handler)] = [
    (ZYDIS_MNEMONIC_FLDCW, loadControlWord), (ZYDIS_MNEMONIC_FNSTCW, storeControlWord),
    (ZYDIS_MNEMONIC_FNSTSW, storeStatusWord), (ZYDIS_MNEMONIC_FNCLEX, clearExceptions),
    (ZYDIS_MNEMONIC_FNINIT, initialize),
  ]

  /// What was masked may come to be waited for, and the other way round.
  @Sendable private static func loadControlWord(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    var area = try context.floatingPoint()
    try context.require(!area.isWaiting, else: .floatingPoint)
    area.control = try context.value(0) | 1 << 6
    area.status =
      area.status & ~FloatingPointArea.summary
      | (area.waiting != 0 ? FloatingPointArea.summary : 0)
    context.setFloatingPoint(area)
  }

  @Sendable private static func storeControlWord(
    _ context: CompletionContext
  ) throws(CompletionStop) { try context.set(0, try context.floatingPoint().control) }

  @Sendable private static func storeStatusWord(
    _ context: CompletionContext
  ) throws(CompletionStop) { try context.set(0, try context.floatingPoint().status) }

  @Sendable private static func clearExceptions(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    var area = try context.floatingPoint()
    // SF goes too.
    area.status &= ~(FloatingPointArea.exceptions | FloatingPointArea.summary | 1 << 6)
    context.setFloatingPoint(area)
  }

  @Sendable private static func initialize(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    var area = try context.floatingPoint()
    area.initialize()
    context.setFloatingPoint(area)
  }
}
