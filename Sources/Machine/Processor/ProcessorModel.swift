import CKVM
import KVM
import LinuxSystem

/// What CPUID tells the guest: a policy applied to what the host offers. Kept with a
/// saved machine, whose guest must find the same processor when it goes on.
package struct ProcessorModel: Sendable {
  package struct State: Codable, Sendable {
    package var version = 1
    package var policy: MachineConfiguration.ProcessorPolicy
    /// CPUID but for topology.
    package var leaves: [CPUIDLeaf]
  }

  private let policy: MachineConfiguration.ProcessorPolicy
  package let leaves: [CPUIDLeaf]

  /// - Parameters:
  ///   - offered: what this host can show a guest.
  ///   - saved: the processor that a saved machine goes on with.
  /// - Throws: kind `host` when the host lacks a feature of the baseline, kind `state`
  ///   when it lacks one of the saved processor, or that is of another kind.
  package init(
    _ policy: MachineConfiguration.ProcessorPolicy, offered: [CPUIDLeaf], saved: State? = nil
  ) throws(MachineError) {
    self.policy = policy
    if let saved {
      guard saved.policy == policy else {
        throw MachineError(
          .state,
          "the saved machine has processors \"\(saved.policy)\", not \"\(policy)\"",
          remedy: "configure it as it was")
      }
      try Self.check(saved.leaves, offered)
      leaves = saved.leaves
      return
    }
    switch policy {
    case .host: leaves = offered
    case .baseline(let baseline):
      let wanted = baseline.leaves(vendor: offered.first(0) ?? CPUIDLeaf(0))
      let missing = wanted.features(lackingIn: offered)
      guard missing.isEmpty else {
        throw MachineError(
          .host,
          "this host cannot be an \(baseline.rawValue) processor: it lacks "
            + missing.joined(separator: ", "),
          remedy: "choose another one, or \"host\"")
      }
      leaves = wanted
    }
  }

  package func saveState() -> State { State(policy: policy, leaves: leaves) }

  private static func check(_ saved: [CPUIDLeaf], _ offered: [CPUIDLeaf]) throws(MachineError) {
    guard saved.vendor == offered.vendor else {
      throw MachineError(
        .state,
        "the saved machine has processors of \(saved.vendor), this host of \(offered.vendor)",
        remedy: "go on with it on a host of the former")
    }
    let missing = saved.features(lackingIn: offered)
    guard missing.isEmpty else {
      throw MachineError(
        .state,
        "the saved machine's processors have features that this host lacks: "
          + missing.joined(separator: ", "),
        remedy: "go on with it on a host that has them, or start machines from a named"
          + " baseline that all hosts offer")
    }
  }

  /// CPUID of processor `index` of `count`, which are the cores of one package.
  package func leaves(processor index: Int, of count: Int) -> [CPUIDLeaf] {
    let topology = CPUTopology(processor: index, of: count)
    let isIntel = leaves.vendor == "GenuineIntel"
    return leaves.compactMap { topology.apply(to: $0, isIntel: isIntel) }
      + topology.extendedTopology(highestLeaf: leaves.first(0)?.eax ?? 0)
  }
}

// MARK: What the host offers

extension ProcessorModel {
  /// KVM's own suggestion, with what KVM adds by itself, less what it cannot carry out.
  static func offered(by system: KVMSystem) throws(KVMError) -> [CPUIDLeaf] {
    let hasDeadline = system.value(of: .tscDeadlineTimer) > 0
    return offered(
      try system.supportedCPUID().map { CPUIDLeaf($0) }, hasDeadlineTimer: hasDeadline,
      isInterpreted: interpretsKernels)
  }

  package static func offered(
    _ leaves: [CPUIDLeaf], hasDeadlineTimer: Bool, isInterpreted: Bool
  ) -> [CPUIDLeaf] {
    leaves.compactMap { leaf in
      var leaf = leaf
      switch leaf.function {
      case 1:
        leaf.ecx |= CPUFeatureWord.basicECX.mask(of: ["hypervisor"])
        // KVM tells of it by a capability instead (Linux, KVM's api.rst, 4.20).
        if hasDeadlineTimer {
          leaf.ecx |= CPUFeatureWord.basicECX.mask(of: ["tsc_deadline_timer"])
        }
        if isInterpreted { leaf.ecx &= ~CPUFeatureWord.basicECX.mask(of: notInterpreted) }
      case 7 where leaf.index == 0 && isInterpreted:
        leaf.ebx &= ~CPUFeatureWord.structuredEBX.mask(of: notInterpreted)
        leaf.ecx = 0
        leaf.edx = 0
      case 0xD where isInterpreted: return nil
      case 0x8000_0001 where isInterpreted:
        // The emulator takes LZCNT for BSR.
        leaf.ecx &= ~CPUFeatureWord.extendedECX.mask(of: ["abm"])
      case 0x8000_0007:
        // Invariant TSC: it is none for a guest that goes on later or elsewhere, which so
        // takes its time from KVM's clock (Intel SDM 3, 18.17.1; AMD APM 3, appendix E.4.6).
        leaf.edx &= ~(1 << 8)
      case 0x4000_0001 where isInterpreted:
        leaf.eax &= ~CPUFeatureWord.paravirtual.mask(of: hypercalls)
      default: break
      }
      return leaf
    }
  }

  /// Whether this KVM executes kernel code with its instruction emulator, which
  /// lacks what is hidden below (kvm_pvm, see the host notes in the README).
  package static var interpretsKernels: Bool { Files.exists("/sys/module/kvm_pvm") }

  private static let notInterpreted: Set<String> = [
    "fma", "cx16", "popcnt", "xsave", "osxsave", "avx", "f16c", "bmi1", "avx2", "bmi2", "smap",
    "avx512f", "avx512dq", "avx512ifma", "avx512pf", "avx512er", "avx512cd", "avx512bw",
    "avx512vl",
  ]

  /// What a guest does through VMCALL, which never returns from interpreted code.
  private static let hypercalls: Set<String> = [
    "kvm_pv_unhalt", "kvm_pv_ipi", "kvm_pv_sched_yield", "kvm_hc_map_gpa_range",
  ]
}
