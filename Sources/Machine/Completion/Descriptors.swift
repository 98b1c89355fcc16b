import CKVM
import CZydis

/// A segment descriptor of 8 bytes (SDM vol. 3, 3.4.5).
struct SegmentDescriptor: Hashable, Sendable {
  let raw: UInt64

  var type: UInt8 { UInt8(truncatingIfNeeded: raw >> 40 & 0xF) }
  /// Code or data, not a system segment.
  var isUser: Bool { raw >> 44 & 1 != 0 }
  var privilegeLevel: Int { Int(raw >> 45 & 3) }
  var isPresent: Bool { raw >> 47 & 1 != 0 }
  var isLong: Bool { raw >> 53 & 1 != 0 }
  var isBig: Bool { raw >> 54 & 1 != 0 }
  var isCode: Bool { isUser && type & 8 != 0 }
  var isConforming: Bool { isCode && type & 4 != 0 }
  var isReadable: Bool { isCode ? type & 2 != 0 : isUser }
  var isWritable: Bool { isUser && !isCode && type & 2 != 0 }

  var base: UInt64 { raw >> 16 & 0xFF_FFFF | raw >> 32 & 0xFF00_0000 }

  /// In bytes, the granularity applied.
  var limit: UInt32 {
    let value = UInt32(truncatingIfNeeded: raw & 0xFFFF | raw >> 32 & 0xF_0000)
    return raw >> 55 & 1 != 0 ? value << 12 | 0xFFF : value
  }

  /// As KVM has a loaded segment.
  func loaded(_ selector: UInt16) -> kvm_segment {
    var segment = kvm_segment()
    segment.base = base
    segment.limit = limit
    segment.selector = selector
    // Loading marks a segment as accessed.
    segment.type = type | 1
    segment.present = isPresent ? 1 : 0
    segment.dpl = UInt8(privilegeLevel)
    segment.db = isBig ? 1 : 0
    segment.s = isUser ? 1 : 0
    segment.l = isLong ? 1 : 0
    segment.g = raw >> 55 & 1 != 0 ? 1 : 0
    segment.avl = raw >> 52 & 1 != 0 ? 1 : 0
    return segment
  }
}

extension CompletionContext {
  /// The linear address of a descriptor; `nil` outside its table, or for a null selector.
  func descriptorAddress(_ selector: UInt16, size: Int = 8) -> UInt64? {
    guard selector & 0xFFFC != 0 else { return nil }
    let offset = UInt64(selector & 0xFFF8)
    let last = offset + UInt64(size) - 1
    if selector & 4 != 0 {
      let table = state.special.ldt
      guard table.unusable == 0, last <= UInt64(table.limit) else { return nil }
      return table.base &+ offset
    }
    guard last <= UInt64(state.special.gdt.limit) else { return nil }
    return state.special.gdt.base &+ offset
  }

  func descriptor(_ selector: UInt16) throws(CompletionStop) -> SegmentDescriptor? {
    guard let address = descriptorAddress(selector) else { return nil }
    let bytes = try memory.read(address, count: 8, isImplicit: true)
    return SegmentDescriptor(raw: UInt64(littleEndian: bytes))
  }

  /// Sets the accessed bit of a descriptor that is loaded.
  func markAccessed(
    _ selector: UInt16, _ descriptor: SegmentDescriptor
  ) throws(CompletionStop) {
    guard descriptor.raw >> 40 & 1 == 0, let address = descriptorAddress(selector) else { return }
    let byte = UInt8(truncatingIfNeeded: descriptor.raw >> 40) | 1
    try memory.write(address &+ 5, [byte], isImplicit: true)
  }
}

extension InstructionCompletion {
  static let descriptorHandlers: [(ZydisMnemonic, Handler)] = [
    (ZYDIS_MNEMONIC_LAR, loadAccessRights), (ZYDIS_MNEMONIC_LSL, loadLimit),
    (ZYDIS_MNEMONIC_VERR, verifyReading), (ZYDIS_MNEMONIC_VERW, verifyWriting),
  ]

  /// The descriptor, if the present privilege level sees it.
  private static func visible(
    _ selector: UInt16, _ context: CompletionContext
  ) throws(CompletionStop) -> SegmentDescriptor? {
    guard let descriptor = try context.descriptor(selector) else { return nil }
    let level = max(context.state.privilegeLevel, Int(selector & 3))
    return descriptor.isConforming || descriptor.privilegeLevel >= level ? descriptor : nil
  }

  @Sendable private static func loadAccessRights(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try context.require(context.state.isProtected, else: .invalidOpcode)
    let selector = UInt16(truncatingIfNeeded: try context.value(1))
    let isLong = context.state.isLong
    // Table 3-52: task state segments, LDT, call and task gates.
    let known: Set<UInt8> = isLong ? [2, 9, 11, 12] : [1, 2, 3, 4, 5, 9, 11, 12]
    guard let descriptor = try visible(selector, context),
      descriptor.isUser || known.contains(descriptor.type)
    else { return context.setFlags(.zero, to: []) }
    try context.set(0, (descriptor.raw >> 32 & 0x00F0_FF00).low(context.bits(0)))
    context.setFlags(.zero, to: .zero)
  }

  @Sendable private static func loadLimit(
    _ context: CompletionContext
  ) throws(CompletionStop) {
    try context.require(context.state.isProtected, else: .invalidOpcode)
    let selector = UInt16(truncatingIfNeeded: try context.value(1))
    // Table 3-56: what has a limit.
    let known: Set<UInt8> = context.state.isLong ? [2, 9, 11] : [1, 2, 3, 9, 11]
    guard let descriptor = try visible(selector, context),
      descriptor.isUser || known.contains(descriptor.type)
    else { return context.setFlags(.zero, to: []) }
    try context.set(0, UInt64(descriptor.limit))
    context.setFlags(.zero, to: .zero)
  }

  @Sendable private static func verifyReading(
    _ context: CompletionContext
  ) throws(CompletionStop) { try verify(context, \.isReadable) }

  @Sendable private static func verifyWriting(
    _ context: CompletionContext
  ) throws(CompletionStop) { try verify(context, \.isWritable) }

  private static func verify(
    _ context: CompletionContext, _ property: KeyPath<SegmentDescriptor, Bool>
  ) throws(CompletionStop) {
    try context.require(context.state.isProtected, else: .invalidOpcode)
    let selector = UInt16(truncatingIfNeeded: try context.value(0))
    let descriptor = try visible(selector, context)
    let fits = descriptor.map { $0.isUser && $0[keyPath: property] } ?? false
    context.setFlags(.zero, to: context.flag(.zero, fits))
  }
}
