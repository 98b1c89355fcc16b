import CZydis

extension InstructionCompletion {
  static let systemHandlers: [(ZydisMnemonic, Handler)] =
    [
      (ZYDIS_MNEMONIC_FWAIT, waitForFloatingPoint), (ZYDIS_MNEMONIC_CLAC, clearAccess),
      (ZYDIS_MNEMONIC_STAC, setAccess), (ZYDIS_MNEMONIC_XGETBV, getExtendedControl),
      (ZYDIS_MNEMONIC_XSETBV, setExtendedControl), (ZYDIS_MNEMONIC_RDTSCP, readTimeStamp),
      (ZYDIS_MNEMONIC_RDPID, readProcessorID), (ZYDIS_MNEMONIC_RDFSBASE, readBase),
      (ZYDIS_MNEMONIC_RDGSBASE, readBase), (ZYDIS_MNEMONIC_WRFSBASE, writeBase),
      (ZYDIS_MNEMONIC_WRGSBASE, writeBase), (ZYDIS_MNEMONIC_INVPCID, invalidate),
      (ZYDIS_MNEMONIC_SWAPGS, swapBase),
      (ZYDIS_MNEMONIC_UD0, undefined), (ZYDIS_MNEMONIC_UD1, undefined),
      (ZYDIS_MNEMONIC_UD2, undefined),
    ] + hints.map { ($0, nothing) }

  /// Orders memory, fetches ahead or marks a place: an interpreter has nothing to do.
  private static let hints = [
    ZYDIS_MNEMONIC_NOP, ZYDIS_MNEMONIC_PAUSE, ZYDIS_MNEMONIC_ENDBR32, ZYDIS_MNEMONIC_ENDBR64,
    ZYDIS_MNEMONIC_LFENCE, ZYDIS_MNEMONIC_MFENCE, ZYDIS_MNEMONIC_SFENCE,
    ZYDIS_MNEMONIC_PREFETCH, ZYDIS_MNEMONIC_PREFETCHW, ZYDIS_MNEMONIC_PREFETCHWT1,
    ZYDIS_MNEMONIC_PREFETCHNTA, ZYDIS_MNEMONIC_PREFETCHT0, ZYDIS_MNEMONIC_PREFETCHT1,
    ZYDIS_MNEMONIC_PREFETCHT2, ZYDIS_MNEMONIC_CLFLUSH, ZYDIS_MNEMONIC_CLFLUSHOPT,
    ZYDIS_MNEMONIC_CLWB,
  ]

  private enum Register {
    static let timeStampCounter: UInt32 = 0x10
    static let processorID: UInt32 = 0xC000_0103
    static let kernelGSBase: UInt32 = 0xC000_0102
  }

  @Sendable private static func nothing(_ context: CompletionContext) throws(CompletionStop) {}

  @Sendable private static func undefined(_ context: CompletionContext) throws(CompletionStop) {
    try context.fail(.invalidOpcode)
  }

  /// CR0.NE clear would raise IRQ 13 instead, as on an AT: nothing runs here that has it.
  @Sendable private static func waitForFloatingPoint(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    let monitorAndSwitched: UInt64 = 1 << 1 | 1 << 3
    try context.require(
      context.state.special.cr0 & monitorAndSwitched != monitorAndSwitched,
      else: .deviceNotAvailable)
    // Error summary, bit 7 of the status word.
    let hasError = try context.extendedState()[2] & 0x80 != 0
    try context.require(
      !(hasError && context.state.special.cr0 & (1 << 5) != 0), else: .floatingPoint)
  }

  // MARK: SMAP

  @Sendable private static func clearAccess(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try context.require(context.state.privilegeLevel == 0, else: .invalidOpcode)
    context.state.flags.remove(.alignmentCheck)
  }

  @Sendable private static func setAccess(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try context.require(context.state.privilegeLevel == 0, else: .invalidOpcode)
    context.state.flags.insert(.alignmentCheck)
  }

  // MARK: XCR0

  static func requireExtendedState(_ context: CompletionContext) throws(CompletionStop) {
    try context.require(context.state.special.cr4 & (1 << 18) != 0, else: .invalidOpcode)
  }

  @Sendable private static func getExtendedControl(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try requireExtendedState(context)
    let index = context.state[1] & 0xFFFF_FFFF
    try context.require(index <= 1, else: .generalProtection())
    var value = try context.port.extendedControlRegister()
    if index == 1 {
      // What of it is in use.
      value &= UInt64(littleEndian: try context.extendedState()[512..<520])
    }
    context.state.set(0, value, bits: 32)
    context.state.set(2, value >> 32, bits: 32)
  }

  @Sendable private static func setExtendedControl(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try requireExtendedState(context)
    try context.require(
      context.state.privilegeLevel == 0 && context.state[1] & 0xFFFF_FFFF == 0,
      else: .generalProtection())
    try context.port.setExtendedControlRegister(
      context.state[2] << 32 | context.state[0] & 0xFFFF_FFFF)
  }

  // MARK: Counters and bases

  @Sendable private static func readTimeStamp(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    let isForbidden =
      context.state.special.cr4 & (1 << 2) != 0 && context.state.privilegeLevel != 0
    try context.require(!isForbidden, else: .generalProtection())
    let time = try context.port.modelSpecificRegister(Register.timeStampCounter)
    context.state.set(0, time, bits: 32)
    context.state.set(2, time >> 32, bits: 32)
    context.state.set(
      1, try context.port.modelSpecificRegister(Register.processorID), bits: 32)
  }

  @Sendable private static func readProcessorID(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try context.set(0, try context.port.modelSpecificRegister(Register.processorID) & 0xFFFF_FFFF)
  }

  private static func requireBases(_ context: CompletionContext) throws(CompletionStop) {
    try context.require(
      context.state.is64Bit && context.state.special.cr4 & (1 << 16) != 0, else: .invalidOpcode)
  }

  private static func isFS(_ context: CompletionContext) -> Bool {
    let mnemonic = UInt32(context.instruction.mnemonic)
    return mnemonic == ZYDIS_MNEMONIC_RDFSBASE.rawValue
      || mnemonic == ZYDIS_MNEMONIC_WRFSBASE.rawValue
  }

  @Sendable private static func readBase(_ context: CompletionContext) throws(CompletionStop) {
    try requireBases(context)
    let special = context.state.special
    try context.set(0, isFS(context) ? special.fs.base : special.gs.base)
  }

  @Sendable private static func writeBase(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try requireBases(context)
    let value = try context.value(0)
    let width = context.state.special.cr4 & (1 << 12) != 0 ? 57 : 48
    try context.require(value.isCanonical(width), else: .generalProtection())
    if isFS(context) {
      context.state.special.fs.base = value
    } else {
      context.state.special.gs.base = value
    }
  }

  @Sendable private static func swapBase(_ context: CompletionContext) throws(CompletionStop) {
    try context.require(context.state.is64Bit, else: .invalidOpcode)
    try context.require(context.state.privilegeLevel == 0, else: .generalProtection())
    let kernel = try context.port.modelSpecificRegister(Register.kernelGSBase)
    try context.port.setModelSpecificRegister(
      Register.kernelGSBase, context.state.special.gs.base)
    context.state.special.gs.base = kernel
  }

  // MARK: INVPCID

  @Sendable private static func invalidate(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try context.require(context.state.isProtected, else: .invalidOpcode)
    try context.require(context.state.privilegeLevel == 0, else: .generalProtection())
    let type = try context.value(0)
    let descriptor = try context.read(1, count: 16)
    let identifier = UInt64(littleEndian: descriptor[..<8])
    let address = UInt64(littleEndian: descriptor[8...])
    try context.require(type <= 3 && identifier >> 12 == 0, else: .generalProtection())
    let hasIdentifiers = context.state.special.cr4 & (1 << 17) != 0
    if type <= 1 {
      try context.require(hasIdentifiers || identifier == 0, else: .generalProtection())
    }
    if type == 0 {
      try context.require(address.isCanonical(48), else: .generalProtection())
    }
    // More may be forgotten than was asked for.
    try context.port.flushTranslations()
  }
}
