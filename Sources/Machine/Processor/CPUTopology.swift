/// Where a processor is: in one package whose cores are all there are, a thread each.
struct CPUTopology {
  private let identifier: UInt32
  private let count: UInt32
  /// Bits of an APIC identifier that tell cores apart.
  private let coreBits: UInt32

  init(processor index: Int, of count: Int) {
    identifier = UInt32(clamping: index)
    self.count = UInt32(clamping: max(1, count))
    coreBits = UInt32(self.count <= 1 ? 0 : 32 - (self.count - 1).leadingZeroBitCount)
  }

  /// A leaf with its topology in it; `nil` when `extendedTopology` takes its place.
  func apply(to leaf: CPUIDLeaf, isIntel: Bool) -> CPUIDLeaf? {
    var leaf = leaf
    let isSeveral = count > 1
    let addressable: UInt32 = 1 << coreBits
    switch leaf.function {
    case 1:
      leaf.ebx = leaf.ebx & 0xFFFF | identifier << 24 | count << 16
      leaf.edx &= ~(1 << 28)
      if isSeveral { leaf.edx |= 1 << 28 }
    case 4:
      // Deterministic cache parameters: caches of level 3 belong to the package.
      let isCache = leaf.eax & 0x1F != 0
      let sharing = leaf.eax >> 5 & 7 >= 3 ? addressable - 1 : 0
      leaf.eax = leaf.eax & 0x3FFF
      if isCache { leaf.eax |= sharing << 14 | min(addressable - 1, 63) << 26 }
    case 0xB, 0x1F: return nil
    case 0x8000_0001:
      // CmpLegacy: HTT means cores.
      leaf.ecx &= ~(1 << 1)
      if isSeveral && !isIntel { leaf.ecx |= 1 << 1 }
    case 0x8000_0008: leaf.ecx = isIntel ? 0 : coreBits << 12 | (count - 1)
    case 0x8000_001D:
      let sharing = leaf.eax >> 5 & 7 >= 3 ? count - 1 : 0
      leaf.eax &= 0x3FFF
      if leaf.eax & 0x1F != 0 { leaf.eax |= sharing << 14 }
    case 0x8000_001E: (leaf.eax, leaf.ebx, leaf.ecx) = (identifier, identifier & 0xFF, 0)
    default: break
    }
    return leaf
  }

  /// Leaf 0xB: threads of a core, cores of the package.
  func extendedTopology(highestLeaf: UInt32) -> [CPUIDLeaf] {
    guard highestLeaf >= 0xB else { return [] }
    return [
      CPUIDLeaf(0xB, index: 0, eax: 0, ebx: 1, ecx: 0x100, edx: identifier),
      CPUIDLeaf(0xB, index: 1, eax: coreBits, ebx: count, ecx: 0x201, edx: identifier),
      CPUIDLeaf(0xB, index: 2, ecx: 2, edx: identifier),
    ]
  }
}
