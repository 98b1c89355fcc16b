import CKVM

/// Bits of RFLAGS.
package struct Flags: OptionSet, Hashable, Sendable {
  package let rawValue: UInt64

  package init(rawValue: UInt64) { self.rawValue = rawValue }

  package static let carry = Flags(rawValue: 1 << 0)
  package static let parity = Flags(rawValue: 1 << 2)
  package static let adjust = Flags(rawValue: 1 << 4)
  package static let zero = Flags(rawValue: 1 << 6)
  package static let sign = Flags(rawValue: 1 << 7)
  package static let trap = Flags(rawValue: 1 << 8)
  package static let interrupt = Flags(rawValue: 1 << 9)
  package static let overflow = Flags(rawValue: 1 << 11)
  package static let nestedTask = Flags(rawValue: 1 << 14)
  package static let resume = Flags(rawValue: 1 << 16)
  package static let virtual8086 = Flags(rawValue: 1 << 17)
  package static let alignmentCheck = Flags(rawValue: 1 << 18)

  package static let arithmetic: Flags = [.carry, .parity, .adjust, .zero, .sign, .overflow]
}

/// The registers of a vCPU that instructions read and change, with what follows from
/// them.
package struct ProcessorState {
  package var general: kvm_regs
  /// Costs more to give back than `general`.
  package var special: kvm_sregs {
    didSet { specialChanged = true }
  }
  private(set) var specialChanged = false

  package init(general: kvm_regs, special: kvm_sregs) {
    self.general = general
    self.special = special
  }

  package var flags: Flags {
    get { Flags(rawValue: general.rflags) }
    set { general.rflags = newValue.rawValue }
  }

  var isProtected: Bool { special.cr0 & 1 != 0 && !isVirtual8086 }
  var isVirtual8086: Bool {
    special.cr0 & 1 != 0 && flags.contains(.virtual8086)
  }
  /// IA-32e mode: 64-bit or compatibility.
  var isLong: Bool { special.efer & (1 << 10) != 0 }
  var is64Bit: Bool { isLong && special.cs.l != 0 }

  /// 64, 32 or 16: the code segment's; 0 in real mode.
  var codeBits: Int {
    if is64Bit { return 64 }
    if special.cr0 & 1 == 0 { return 0 }
    return special.cs.db != 0 && !isVirtual8086 ? 32 : 16
  }

  package var privilegeLevel: Int {
    if special.cr0 & 1 == 0 { return 0 }
    return isVirtual8086 ? 3 : Int(special.ss.dpl & 3)
  }

  /// How wide RSP is used: 64, 32 or 16.
  var stackBits: Int { is64Bit ? 64 : (special.ss.db != 0 && special.cr0 & 1 != 0 ? 32 : 16) }

  /// General registers in their encoding's order, as 64-bit values.
  package subscript(register: Int) -> UInt64 {
    get {
      switch register & 15 {
      case 0: general.rax
      case 1: general.rcx
      case 2: general.rdx
      case 3: general.rbx
      case 4: general.rsp
      case 5: general.rbp
      case 6: general.rsi
      case 7: general.rdi
      case 8: general.r8
      case 9: general.r9
      case 10: general.r10
      case 11: general.r11
      case 12: general.r12
      case 13: general.r13
      case 14: general.r14
      default: general.r15
      }
    }
    set {
      switch register & 15 {
      case 0: general.rax = newValue
      case 1: general.rcx = newValue
      case 2: general.rdx = newValue
      case 3: general.rbx = newValue
      case 4: general.rsp = newValue
      case 5: general.rbp = newValue
      case 6: general.rsi = newValue
      case 7: general.rdi = newValue
      case 8: general.r8 = newValue
      case 9: general.r9 = newValue
      case 10: general.r10 = newValue
      case 11: general.r11 = newValue
      case 12: general.r12 = newValue
      case 13: general.r13 = newValue
      case 14: general.r14 = newValue
      default: general.r15 = newValue
      }
    }
  }

  /// Writes the low `bits` of a general register: 32 clear the upper half, 8 and 16
  /// leave the rest (SDM vol. 1, 3.4.1.1).
  mutating func set(_ register: Int, _ value: UInt64, bits: Int, isHigh: Bool = false) {
    switch bits {
    case 64: self[register] = value
    case 32: self[register] = value & 0xFFFF_FFFF
    case 16: self[register] = self[register] & ~0xFFFF | value & 0xFFFF
    default:
      let shift: UInt64 = isHigh ? 8 : 0
      let number = isHigh ? register - 4 : register
      self[number] = self[number] & ~(0xFF << shift) | (value & 0xFF) << shift
    }
  }

  /// ES, CS, SS, DS, FS, GS by their encoding.
  func segment(_ number: Int) -> kvm_segment {
    switch number {
    case 0: special.es
    case 1: special.cs
    case 2: special.ss
    case 3: special.ds
    case 4: special.fs
    default: special.gs
    }
  }
}

extension UInt64 {
  /// The low `bits` of it.
  package func low(_ bits: Int) -> UInt64 { bits >= 64 ? self : self & ((1 << UInt64(bits)) - 1) }

  /// Whether `bits` is 48 or 57 and the bits above repeat the top one of them.
  func isCanonical(_ bits: Int) -> Bool {
    let shift = Int64(64 - bits)
    return (Int64(bitPattern: self) << shift) >> shift == Int64(bitPattern: self)
  }

  /// Little-endian.
  package init(littleEndian bytes: some Sequence<UInt8>) {
    var value: UInt64 = 0
    for (index, byte) in bytes.enumerated() where index < 8 {
      value |= UInt64(byte) << UInt64(index * 8)
    }
    self = value
  }

  package func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { $0 < 8 ? UInt8(truncatingIfNeeded: self >> UInt64($0 * 8)) : 0 }
  }
}
