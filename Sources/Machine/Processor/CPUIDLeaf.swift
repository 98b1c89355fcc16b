import CKVM

/// One leaf of CPUID, as plain data.
package struct CPUIDLeaf: Hashable, Sendable, Codable {
  package enum Register: String, Hashable, Sendable, Codable {
    case eax, ebx, ecx, edx
  }

  package var function: UInt32
  package var index: UInt32
  /// Whether `index` selects, too (KVM_CPUID_FLAG_SIGNIFICANT_INDEX and the like).
  package var flags: UInt32
  package var eax: UInt32
  package var ebx: UInt32
  package var ecx: UInt32
  package var edx: UInt32

  package init(
    _ function: UInt32, index: UInt32? = nil, eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0,
    edx: UInt32 = 0
  ) {
    self.function = function
    self.index = index ?? 0
    flags = index == nil ? 0 : 1
    self.eax = eax
    self.ebx = ebx
    self.ecx = ecx
    self.edx = edx
  }

  package subscript(_ register: Register) -> UInt32 {
    get {
      switch register {
      case .eax: eax
      case .ebx: ebx
      case .ecx: ecx
      case .edx: edx
      }
    }
    set {
      switch register {
      case .eax: eax = newValue
      case .ebx: ebx = newValue
      case .ecx: ecx = newValue
      case .edx: edx = newValue
      }
    }
  }

  init(_ entry: kvm_cpuid_entry2) {
    self.init(
      entry.function, eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx)
    index = entry.index
    flags = entry.flags
  }

  var entry: kvm_cpuid_entry2 {
    kvm_cpuid_entry2(
      function: function, index: index, flags: flags, eax: eax, ebx: ebx, ecx: ecx, edx: edx,
      padding: (0, 0, 0))
  }
}

extension [CPUIDLeaf] {
  package func first(_ function: UInt32, index: UInt32 = 0) -> CPUIDLeaf? {
    first { $0.function == function && $0.index == index }
  }

  /// Who made the processor: leaf 0's EBX, EDX and ECX.
  package var vendor: String {
    guard let leaf = first(0) else { return "" }
    let bytes = [leaf.ebx, leaf.edx, leaf.ecx].flatMap { word in
      (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) }
    }
    return String(decoding: bytes.filter { $0 != 0 }, as: UTF8.self)
  }
}
