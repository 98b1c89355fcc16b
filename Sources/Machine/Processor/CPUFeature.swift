/// Registers of CPUID in which each bit is a feature, and the names of the bits (those
/// of Linux's /proc/cpuinfo).
package struct CPUFeatureWord: Hashable, Sendable {
  package let function: UInt32
  package let index: UInt32
  package let register: CPUIDLeaf.Register
  /// By bit, from bit 0; `_` and bits beyond have none.
  private let names: [Substring]

  private init(
    _ function: UInt32, index: UInt32 = 0, _ register: CPUIDLeaf.Register, _ names: String
  ) {
    self.function = function
    self.index = index
    self.register = register
    self.names = names.split(separator: " ")
  }

  package func name(ofBit bit: Int) -> String {
    if bit < names.count, names[bit] != "_" { return String(names[bit]) }
    let leaf = String(function, radix: 16, uppercase: true)
    return "CPUID.\(leaf)H.\(index):\(register.rawValue.uppercased())[\(bit)]"
  }

  /// The bits of those names.
  func mask(of features: Set<String>) -> UInt32 {
    names.enumerated().reduce(0) {
      $1.element != "_" && $1.offset < 32 && features.contains(String($1.element))
        ? $0 | 1 << UInt32($1.offset) : $0
    }
  }

  static let basicEDX = CPUFeatureWord(
    1, .edx,
    """
    fpu vme de pse tsc msr pae mce cx8 apic _ sep mtrr pge mca cmov pat pse36 pn clflush _ dts \
    acpi mmx fxsr sse sse2 ss ht tm ia64 pbe
    """)
  static let basicECX = CPUFeatureWord(
    1, .ecx,
    """
    pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm _ \
    pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c \
    rdrand hypervisor
    """)
  static let structuredEBX = CPUFeatureWord(
    7, .ebx,
    """
    fsgsbase tsc_adjust sgx bmi1 hle avx2 _ smep bmi2 erms invpcid rtm cqm _ mpx rdt_a avx512f \
    avx512dq rdseed adx smap avx512ifma _ clflushopt clwb intel_pt avx512pf avx512er avx512cd \
    sha_ni avx512bw avx512vl
    """)
  static let structuredECX = CPUFeatureWord(
    7, .ecx,
    """
    prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq \
    avx512_vnni avx512_bitalg tme avx512_vpopcntdq _ la57 _ _ _ _ _ rdpid _ bus_lock_detect \
    cldemote _ movdiri movdir64b
    """)
  static let structuredEDX = CPUFeatureWord(
    7, .edx,
    """
    _ _ avx512_4vnniw avx512_4fmaps fsrm _ _ _ avx512_vp2intersect _ md_clear _ _ _ serialize _ \
    tsxldtrk _ _ _ ibt _ amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d \
    arch_capabilities core_capabilities ssbd
    """)
  static let moreStructuredEAX = CPUFeatureWord(
    7, index: 1, .eax, "sha512 sm3 sm4 _ avx_vnni avx512_bf16")
  static let extendedStateEAX = CPUFeatureWord(
    0xD, index: 1, .eax, "xsaveopt xsavec xgetbv1 xsaves")
  static let extendedECX = CPUFeatureWord(
    0x8000_0001, .ecx,
    """
    lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop \
    skinit wdt _ lwp fma4 tce _ nodeid_msr _ tbm topoext perfctr_core perfctr_nb _ bpext ptsc \
    perfctr_llc mwaitx
    """)
  /// AMD repeats leaf 1's EDX in the bits without a name.
  static let extendedEDX = CPUFeatureWord(
    0x8000_0001, .edx,
    """
    _ _ _ _ _ _ _ _ _ _ _ syscall _ _ _ _ _ _ _ mp nx _ mmxext _ _ fxsr_opt pdpe1gb rdtscp _ lm \
    3dnowext 3dnow
    """)
  static let sizesEBX = CPUFeatureWord(
    0x8000_0008, .ebx,
    "clzero irperf xsaveerptr _ _ _ _ _ _ wbnoinvd _ _ amd_ibpb _ amd_ibrs amd_stibp")
  /// KVM's own (Linux, Documentation/virt/kvm/x86/cpuid.rst).
  static let paravirtual = CPUFeatureWord(
    0x4000_0001, .eax,
    """
    kvmclock kvm_nop_io_delay kvm_mmu kvmclock2 kvm_asyncpf kvm_steal_time kvm_pv_eoi \
    kvm_pv_unhalt _ kvm_pv_tlb_flush kvm_asyncpf_vmexit kvm_pv_ipi kvm_poll_control \
    kvm_pv_sched_yield kvm_asyncpf_int kvm_msi_ext_dest_id kvm_hc_map_gpa_range \
    kvm_migration_control _ _ _ _ _ _ kvmclock_stable
    """)

  package static let all: [CPUFeatureWord] = [
    basicEDX, basicECX, structuredEBX, structuredECX, structuredEDX, moreStructuredEAX,
    extendedStateEAX, extendedECX, extendedEDX, sizesEBX, paravirtual,
  ]
}

extension [CPUIDLeaf] {
  package func bits(of word: CPUFeatureWord) -> UInt32 {
    first(word.function, index: word.index)?[word.register] ?? 0
  }

  /// Names of the features that are here and not in `offered`. Topology and what the
  /// guest's own doing sets (OSXSAVE, OSPKE) are none.
  package func features(lackingIn offered: [CPUIDLeaf]) -> [String] {
    var names: [String] = []
    for word in CPUFeatureWord.all {
      let volatile = word.mask(of: ["osxsave", "ospke", "hypervisor", "ht", "cmp_legacy"])
      let lacking = bits(of: word) & ~offered.bits(of: word) & ~volatile
      for bit in 0..<32 where lacking >> UInt32(bit) & 1 != 0 {
        let name = word.name(ofBit: bit)
        if !names.contains(name) { names.append(name) }
      }
    }
    return names
  }
}
