import CZydis

extension InstructionCompletion {
  /// Saving and restoring x87, SSE and later state (SDM vol. 1, chapter 13).
  static let extendedStateHandlers: [(ZydisMnemonic, Handler)] = [
    (ZYDIS_MNEMONIC_XSAVE, { c throws(CompletionStop) in try save(c, .standard) }),
    (ZYDIS_MNEMONIC_XSAVE64, { c throws(CompletionStop) in try save(c, .standard) }),
    (ZYDIS_MNEMONIC_XSAVEOPT, { c throws(CompletionStop) in try save(c, .optimized) }),
    (ZYDIS_MNEMONIC_XSAVEOPT64, { c throws(CompletionStop) in try save(c, .optimized) }),
    (ZYDIS_MNEMONIC_XSAVEC, { c throws(CompletionStop) in try save(c, .compacted) }),
    (ZYDIS_MNEMONIC_XSAVEC64, { c throws(CompletionStop) in try save(c, .compacted) }),
    (ZYDIS_MNEMONIC_XSAVES, { c throws(CompletionStop) in try save(c, .supervisor) }),
    (ZYDIS_MNEMONIC_XSAVES64, { c throws(CompletionStop) in try save(c, .supervisor) }),
    (ZYDIS_MNEMONIC_XRSTOR, { c throws(CompletionStop) in try restore(c, .standard) }),
    (ZYDIS_MNEMONIC_XRSTOR64, { c throws(CompletionStop) in try restore(c, .standard) }),
    (ZYDIS_MNEMONIC_XRSTORS, { c throws(CompletionStop) in try restore(c, .supervisor) }),
    (ZYDIS_MNEMONIC_XRSTORS64, { c throws(CompletionStop) in try restore(c, .supervisor) }),
    (ZYDIS_MNEMONIC_FXSAVE, fastSave), (ZYDIS_MNEMONIC_FXSAVE64, fastSave),
    (ZYDIS_MNEMONIC_FXRSTOR, fastRestore), (ZYDIS_MNEMONIC_FXRSTOR64, fastRestore),
    (ZYDIS_MNEMONIC_LDMXCSR, loadControl), (ZYDIS_MNEMONIC_STMXCSR, storeControl),
  ]

  private enum Form {
    case standard, optimized, compacted, supervisor

    var isCompacted: Bool { self == .compacted || self == .supervisor }
  }

  /// Offsets in the legacy region and the header.
  private enum Area {
    static let control = 24..<32
    static let registers = 32..<160
    static let vectors = 160..<416
    static let header = 512
    static let size = 576
    static let initialMXCSR: [UInt8] = [0x80, 0x1F, 0, 0]
  }

  private static let supervisorMask: UInt32 = 0xDA0

  // MARK: Preconditions

  private static func begin(
    _ context: CompletionContext, _ form: Form
  ) throws(CompletionStop) -> UInt64 {
    try requireExtendedState(context)
    try requireAvailable(context)
    var supported = try context.port.extendedControlRegister()
    if form == .supervisor {
      try context.require(context.state.privilegeLevel == 0, else: .generalProtection())
      supported |= try context.port.modelSpecificRegister(supervisorMask)
    }
    return supported & (context.state[2] << 32 | context.state[0] & 0xFFFF_FFFF)
  }

  private static func requireAvailable(_ context: CompletionContext) throws(CompletionStop) {
    try context.require(
      context.state.special.cr0 & (1 << 3) == 0, else: .deviceNotAvailable)
  }

  private static func address(
    _ context: CompletionContext, count: Int, alignment: UInt64, isWrite: Bool
  ) throws(CompletionStop) -> UInt64 {
    let address = try context.linear(0, count: count, isWrite: isWrite)
    try context.require(address & (alignment - 1) == 0, else: .generalProtection())
    return address
  }

  /// Where each component of `mask` from 2 on lies, and how far they reach.
  private static func layout(
    _ mask: UInt64, isCompacted: Bool, _ context: CompletionContext
  ) -> (places: [(ExtendedComponent, Int)], size: Int) {
    var places: [(ExtendedComponent, Int)] = []
    var end = Area.size
    for component in context.port.components.sorted(by: { $0.number < $1.number })
    where mask >> UInt64(component.number) & 1 != 0 {
      var start = component.offset
      if isCompacted { start = component.isAligned ? (end + 63) & ~63 : end }
      places.append((component, start))
      end = max(end, start + component.size)
    }
    return (places, end)
  }

  private static func isSet(_ mask: UInt64, _ component: Int) -> Bool {
    mask >> UInt64(component) & 1 != 0
  }

  // MARK: Saving

  private static func save(
    _ context: CompletionContext, _ form: Form
  ) throws(CompletionStop) {
    let mask = try begin(context, form)
    let state = try context.extendedState()
    var inUse = UInt64(littleEndian: state[Area.header..<Area.header + 8])
    if form.isCompacted, state[24..<28].elementsEqual(Area.initialMXCSR) == false { inUse |= 2 }
    let saved = form == .standard ? mask : mask & inUse
    let (places, size) = layout(mask, isCompacted: form.isCompacted, context)
    let target = try address(
      context, count: form.isCompacted ? size : Area.size, alignment: 64, isWrite: true)
    var pieces = legacyPieces(saved, mask, state, context, form)
    let previous =
      form.isCompacted
      ? 0 : UInt64(littleEndian: try context.memory.read(target &+ 512, count: 8)) & ~mask
    var header = (previous | mask & inUse).bytes(8)
    if form.isCompacted { header += (mask | 1 << 63).bytes(8) }
    pieces.append((Area.header, header))
    for (component, place) in places where isSet(saved, component.number) {
      pieces.append((place, bytes(of: component, in: state)))
    }
    // Every page is looked at before the first is written.
    for (place, bytes) in pieces {
      _ = try context.memory.translate(target &+ UInt64(place), .init(isWrite: true))
      _ = try context.memory.translate(
        target &+ UInt64(place + bytes.count - 1), .init(isWrite: true))
    }
    for (place, bytes) in pieces { try context.memory.write(target &+ UInt64(place), bytes) }
  }

  private static func bytes(of component: ExtendedComponent, in state: [UInt8]) -> [UInt8] {
    let end = component.offset + component.size
    guard end <= state.count else { return Array(repeating: 0, count: component.size) }
    return Array(state[component.offset..<end])
  }

  private static func legacyPieces(
    _ saved: UInt64, _ mask: UInt64, _ state: [UInt8], _ context: CompletionContext, _ form: Form
  ) -> [(Int, [UInt8])] {
    var pieces: [(Int, [UInt8])] = []
    if isSet(saved, 0) {
      pieces.append((0, pointers(state, context)))
      pieces.append((Area.registers.lowerBound, Array(state[Area.registers])))
    }
    let savesControl = form.isCompacted ? isSet(saved, 1) : mask & 6 != 0
    if savesControl { pieces.append((Area.control.lowerBound, Array(state[Area.control]))) }
    if isSet(saved, 1) {
      pieces.append((Area.vectors.lowerBound, Array(state[Area.vectors])))
    }
    return pieces
  }

  /// Control words and the last instruction's and operand's addresses: whole with REX.W,
  /// else their low halves with no selectors, which processors do not keep any more.
  private static func pointers(_ state: [UInt8], _ context: CompletionContext) -> [UInt8] {
    var bytes = Array(state[0..<24])
    guard context.instruction.operand_width != 64 else { return bytes }
    for index in [12, 13, 14, 15, 20, 21, 22, 23] { bytes[index] = 0 }
    return bytes
  }

  // MARK: Restoring

  private static func restore(
    _ context: CompletionContext, _ form: Form
  ) throws(CompletionStop) {
    let mask = try begin(context, form)
    let source = try address(context, count: Area.size, alignment: 64, isWrite: false)
    let head = try context.memory.read(source, count: Area.size)
    let present = UInt64(littleEndian: head[512..<520])
    let compaction = UInt64(littleEndian: head[520..<528])
    let isCompacted = compaction >> 63 != 0
    try checkHeader(head, present, compaction, form, context)
    var state = try context.extendedState()
    let loaded = mask & present
    try restoreLegacy(&state, head, mask: mask, loaded: loaded, isCompacted, context)
    let (places, _) = layout(
      isCompacted ? compaction & ~(1 << 63) : mask, isCompacted: isCompacted, context)
    for (component, place) in places where isSet(mask, component.number) {
      let end = component.offset + component.size
      guard end <= state.count else { continue }
      let bytes =
        isSet(loaded, component.number)
        ? try context.memory.read(source &+ UInt64(place), count: component.size)
        : Array(repeating: 0, count: component.size)
      state.replaceSubrange(component.offset..<end, with: bytes)
    }
    let inUse = UInt64(littleEndian: state[512..<520]) & ~mask | loaded
    state.replaceSubrange(512..<520, with: inUse.bytes(8))
    context.setExtendedState(state)
  }

  /// SDM vol. 1, 13.8 and 13.12.
  private static func checkHeader(
    _ head: [UInt8], _ present: UInt64, _ compaction: UInt64, _ form: Form,
    _ context: CompletionContext
  ) throws(CompletionStop) {
    var supported = try context.port.extendedControlRegister()
    if form == .supervisor {
      supported |= try context.port.modelSpecificRegister(supervisorMask)
    }
    let isCompacted = compaction >> 63 != 0
    let contained = compaction & ~(1 << 63)
    let isRight =
      isCompacted
      ? contained & ~supported == 0 && present & ~contained == 0
        && head[528..<576].allSatisfy { $0 == 0 }
      : form != .supervisor && compaction == 0 && present & ~supported == 0
        && head[528..<536].allSatisfy { $0 == 0 }
    try context.require(isRight, else: .generalProtection())
  }

  private static func restoreLegacy(
    _ state: inout [UInt8], _ head: [UInt8], mask: UInt64, loaded: UInt64,
    _ isCompacted: Bool, _ context: CompletionContext
  ) throws(CompletionStop) {
    if isSet(mask, 0) {
      let isLoaded = isSet(loaded, 0)
      // The control word of FNINIT; every register empty.
      let initial: [UInt8] = [0x7F, 0x03] + Array(repeating: 0, count: 22)
      state.replaceSubrange(0..<24, with: isLoaded ? Array(head[0..<24]) : initial)
      state.replaceSubrange(
        Area.registers, with: isLoaded ? Array(head[Area.registers]) : zeros(Area.registers))
    }
    let loadsControl = isCompacted ? isSet(loaded, 1) : mask & 6 != 0
    if loadsControl {
      try checkControl(Array(head[24..<28]), state, context)
      state.replaceSubrange(24..<28, with: head[24..<28])
    } else if isCompacted, isSet(mask, 1) {
      state.replaceSubrange(24..<28, with: Area.initialMXCSR)
    }
    if isSet(mask, 1) {
      state.replaceSubrange(
        Area.vectors, with: isSet(loaded, 1) ? Array(head[Area.vectors]) : zeros(Area.vectors))
    }
  }

  private static func zeros(_ range: Range<Int>) -> [UInt8] {
    Array(repeating: 0, count: range.count)
  }

  /// Reserved bits of MXCSR, which the mask beside it tells (SDM vol. 1, 11.6.6).
  private static func checkControl(
    _ value: [UInt8], _ state: [UInt8], _ context: CompletionContext
  ) throws(CompletionStop) {
    let mask = UInt64(littleEndian: state[28..<32])
    let allowed = mask == 0 ? 0xFFBF : mask
    try context.require(
      UInt64(littleEndian: value) & ~allowed == 0, else: .generalProtection())
  }

  // MARK: FXSAVE, FXRSTOR, MXCSR

  @Sendable private static func fastSave(_ context: CompletionContext) throws(CompletionStop) {
    try requireFast(context)
    let target = try address(context, count: 512, alignment: 16, isWrite: true)
    let state = try context.extendedState()
    let hasVectors = context.state.special.cr4 & (1 << 9) != 0
    try context.memory.write(
      target,
      pointers(state, context) + state[24..<160]
        + (hasVectors ? Array(state[Area.vectors]) : []))
  }

  @Sendable private static func fastRestore(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try requireFast(context)
    let source = try address(context, count: 512, alignment: 16, isWrite: false)
    let bytes = try context.memory.read(source, count: 416)
    var state = try context.extendedState()
    state.replaceSubrange(0..<24, with: bytes[0..<24])
    state.replaceSubrange(Area.registers, with: bytes[Area.registers])
    state[512] |= 1
    if context.state.special.cr4 & (1 << 9) != 0 {
      try checkControl(Array(bytes[24..<28]), state, context)
      state.replaceSubrange(24..<28, with: bytes[24..<28])
      state.replaceSubrange(Area.vectors, with: bytes[Area.vectors])
      state[512] |= 2
    }
    context.setExtendedState(state)
  }

  private static func requireFast(_ context: CompletionContext) throws(CompletionStop) {
    // CR0.EM or TS.
    try context.require(
      context.state.special.cr0 & (1 << 2 | 1 << 3) == 0, else: .deviceNotAvailable)
  }

  @Sendable private static func loadControl(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try requireVectors(context)
    let value = try context.value(0)
    var state = try context.extendedState()
    try checkControl(value.bytes(4), state, context)
    state.replaceSubrange(24..<28, with: value.bytes(4))
    state[512] |= 2
    context.setExtendedState(state)
  }

  @Sendable private static func storeControl(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try requireVectors(context)
    try context.set(0, UInt64(littleEndian: try context.extendedState()[24..<28]))
  }

  /// What every SSE instruction needs (SDM vol. 3, 14.1).
  static func requireVectors(_ context: CompletionContext) throws(CompletionStop) {
    let special = context.state.special
    try context.require(
      special.cr0 & (1 << 2) == 0 && special.cr4 & (1 << 9) != 0
        && context.instruction.vector_length == 0, else: .invalidOpcode)
    try requireAvailable(context)
  }
}
