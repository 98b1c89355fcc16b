/// A processor that is the same on every host that can be it: the feature level of that
/// name in the x86-64 psABI, what every 64-bit kernel takes for granted, and KVM's own
/// clock, steal time and end-of-interrupt.
public enum CPUBaseline: String, Hashable, Sendable, Codable, CaseIterable {
  case v1 = "x86-64-v1"
  case v2 = "x86-64-v2"
  case v3 = "x86-64-v3"

  /// Names of all its features.
  var features: Set<String> {
    var names: Set<String> = [
      "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "sep", "mtrr", "pge",
      "mca", "cmov", "pat", "pse36", "clflush", "mmx", "fxsr", "sse", "sse2", "x2apic",
      "hypervisor", "tsc_deadline_timer", "syscall", "nx", "lm", "kvmclock", "kvmclock2",
      "kvm_steal_time", "kvm_pv_eoi", "kvmclock_stable",
    ]
    if self == .v1 { return names }
    names.formUnion(["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"])
    if self == .v2 { return names }
    names.formUnion(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"])
    return names
  }

  /// CPUID of this processor, but for topology, made by `vendor`.
  ///
  /// The vendor is the host's: instructions such as SYSENTER in 64-bit mode differ, and
  /// KVM carries out those of the vendor that CPUID names.
  func leaves(vendor: CPUIDLeaf) -> [CPUIDLeaf] {
    let isAMD = [vendor].vendor != "GenuineIntel"
    func bits(_ word: CPUFeatureWord) -> UInt32 { word.mask(of: features) }
    var leaves = [
      CPUIDLeaf(0, eax: 0xD, ebx: vendor.ebx, ecx: vendor.ecx, edx: vendor.edx),
      // Family 15, in which neither vendor has errata that kernels work around: CLFLUSH
      // of 64 bytes.
      CPUIDLeaf(
        1, eax: isAMD ? 0x0006_0FB1 : 0x0000_0F61, ebx: 8 << 8, ecx: bits(.basicECX),
        edx: bits(.basicEDX)),
      CPUIDLeaf(
        7, index: 0, ebx: bits(.structuredEBX), ecx: bits(.structuredECX),
        edx: bits(.structuredEDX)),
      CPUIDLeaf(0x4000_0000, eax: 0x4000_0001, ebx: 0x4B4D_564B, ecx: 0x564B_4D56, edx: 0x4D),
      CPUIDLeaf(0x4000_0001, eax: bits(.paravirtual)),
      CPUIDLeaf(
        0x8000_0000, eax: 0x8000_0008, ebx: isAMD ? vendor.ebx : 0, ecx: isAMD ? vendor.ecx : 0,
        edx: isAMD ? vendor.edx : 0),
      CPUIDLeaf(0x8000_0001, ecx: bits(.extendedECX), edx: bits(.extendedEDX)),
      // 40 bits of physical addresses, 48 of linear ones.
      CPUIDLeaf(0x8000_0008, eax: 0x3028),
    ]
    if features.contains("xsave") {
      // x87, SSE and AVX, whose state has its place in the architecture.
      leaves += [
        CPUIDLeaf(0xD, index: 0, eax: 7, ebx: 576, ecx: 832),
        CPUIDLeaf(0xD, index: 1),
        CPUIDLeaf(0xD, index: 2, eax: 256, ebx: 576),
      ]
    }
    return leaves + brand
  }

  /// The name that guests show, of 48 characters.
  private var brand: [CPUIDLeaf] {
    let text = Array("Carrel \(rawValue)".utf8.prefix(47))
    let bytes = text + Array(repeating: 0, count: 48 - text.count)
    func word(_ at: Int) -> UInt32 {
      bytes[at..<at + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
    return (0..<3).map { part in
      let at = part * 16
      return CPUIDLeaf(
        0x8000_0002 + UInt32(part), eax: word(at), ebx: word(at + 4), ecx: word(at + 8),
        edx: word(at + 12))
    }
  }
}
