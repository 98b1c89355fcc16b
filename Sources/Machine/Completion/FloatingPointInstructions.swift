import CZydis

extension InstructionCompletion {
  /// The x87 instructions that set it up and ask it how it is; none that compute.
  static let floatingPointHandlers: [(ZydisMnemonic, Handler)] = [
    (ZYDIS_MNEMONIC_FLDCW, loadControlWord), (ZYDIS_MNEMONIC_FNSTCW, storeControlWord),
    (ZYDIS_MNEMONIC_FNSTSW, storeStatusWord), (ZYDIS_MNEMONIC_FNCLEX, clearExceptions),
    (ZYDIS_MNEMONIC_FNINIT, initialize),
  ]

  private static let controlWord = 0..<2
  private static let statusWord = 2..<4
  /// Exceptions that may wait: IE, DE, ZE, OE, UE, PE.
  private static let exceptions: UInt64 = 0x3F
  /// ES, an exception that is not masked, and B, which is the same.
  private static let summary: UInt64 = 1 << 7 | 1 << 15

  private static func begin(_ context: CompletionContext) throws(CompletionStop) -> [UInt8] {
    // CR0.EM or TS.
    try context.require(
      context.state.special.cr0 & (1 << 2 | 1 << 3) == 0, else: .deviceNotAvailable)
    return try context.extendedState()
  }

  private static func finish(_ context: CompletionContext, _ area: [UInt8]) {
    var area = area
    // The x87 state is in use from now on (XSTATE_BV).
    area[512] |= 1
    context.setExtendedState(area)
  }

  private static func word(_ area: [UInt8], _ place: Range<Int>) -> UInt64 {
    UInt64(littleEndian: area[place])
  }

  /// What was masked may come to be waited for, and the other way round.
  @Sendable private static func loadControlWord(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    var area = try begin(context)
    try context.require(word(area, statusWord) & summary == 0, else: .floatingPoint)
    let control = try context.value(0) | 1 << 6
    area.replaceSubrange(controlWord, with: control.bytes(2))
    let waiting = word(area, statusWord) & ~control & exceptions != 0
    let status = word(area, statusWord) & ~summary | (waiting ? summary : 0)
    area.replaceSubrange(statusWord, with: status.bytes(2))
    finish(context, area)
  }

  @Sendable private static func storeControlWord(
    _ context: CompletionContext
  ) throws(CompletionStop) { try context.set(0, word(try begin(context), controlWord)) }

  @Sendable private static func storeStatusWord(
    _ context: CompletionContext
  ) throws(CompletionStop) { try context.set(0, word(try begin(context), statusWord)) }

  @Sendable private static func clearExceptions(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    var area = try begin(context)
    // SF goes too.
    let status = word(area, statusWord) & ~(exceptions | summary | 1 << 6)
    area.replaceSubrange(statusWord, with: status.bytes(2))
    finish(context, area)
  }

  /// Everything masked, 64-bit precision, all registers empty; their contents stay.
  @Sendable private static func initialize(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    var area = try begin(context)
    area.replaceSubrange(0..<24, with: [0x7F, 0x03] + Array(repeating: 0, count: 22))
    finish(context, area)
  }
}
