import CKVM
import KVM
import LinuxSystem

/// What CPUID tells the guest.
package enum ProcessorModel {
  /// KVM's own suggestion, with topology for `count` processors of one core each.
  static func cpuid(_ system: KVMSystem, processor: Int, of count: Int) throws(KVMError)
    -> [kvm_cpuid_entry2]
  {
    let isInterpreted = interpretsKernels
    return try system.supportedCPUID().compactMap { leaf in
      var leaf = leaf
      switch leaf.function {
      case 1:
        leaf.ebx = leaf.ebx & 0xFFFF | UInt32(processor) << 24 | UInt32(count) << 16
        leaf.ecx |= 1 << 31  // a hypervisor is present
        if count > 1 { leaf.edx |= 1 << 28 }
        if isInterpreted { leaf.ecx &= ~Leaf1.notInterpreted }
      case 4:
        // One core in the package, one thread to each cache.
        leaf.eax &= 0x3FFF
      case 7 where leaf.index == 0 && isInterpreted:
        leaf.ebx &= ~Leaf7.notInterpreted
        leaf.ecx = 0
        leaf.edx = 0
      case 0xB, 0x1F:
        leaf.edx = UInt32(processor)
        if leaf.index == 0 { (leaf.eax, leaf.ebx, leaf.ecx) = (0, 1, 0x100) }
        if leaf.index == 1 { (leaf.eax, leaf.ebx, leaf.ecx) = (8, UInt32(count), 0x201) }
        if leaf.index > 1 { return nil }
      case 0xD where isInterpreted: return nil
      case 0x8000_0001 where isInterpreted:
        // LZCNT, which the emulator takes for BSR.
        leaf.ecx &= ~(1 << 5)
      case 0x8000_0008: leaf.ecx = 0
      case 0x8000_001E: (leaf.eax, leaf.ebx) = (UInt32(processor), UInt32(processor))
      default: break
      }
      return leaf
    }
  }

  /// Whether this KVM executes kernel code with its instruction emulator, which
  /// lacks what is hidden below (kvm_pvm, see the host notes in the README).
  package static var interpretsKernels: Bool { Files.exists("/sys/module/kvm_pvm") }

  private enum Leaf1 {
    /// FMA, CX16, POPCNT, XSAVE, OSXSAVE, AVX, F16C.
    static let notInterpreted: UInt32 =
      1 << 12 | 1 << 13 | 1 << 23 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29
  }

  private enum Leaf7 {
    /// BMI1, AVX2, BMI2, SMAP, and all of AVX-512.
    static let notInterpreted: UInt32 =
      1 << 3 | 1 << 5 | 1 << 8 | 1 << 20 | 1 << 16 | 1 << 17 | 1 << 21 | 1 << 26 | 1 << 27
      | 1 << 28 | 1 << 30 | 1 << 31
  }
}
