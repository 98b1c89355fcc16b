import CKVM
import LinuxSystem

/// /dev/kvm: what the host's KVM offers, and where machines come from.
public final class KVMSystem: Sendable {
  let descriptor: FileDescriptor

  /// Opens /dev/kvm and checks that it has all that a machine needs.
  ///
  /// - Throws: kinds `missing`, `forbidden`, `apiVersion`, `capabilityMissing`,
  ///   each with the remedy.
  public init(path: String = "/dev/kvm", required: [KVMCapability] = KVMCapability.required)
    throws(KVMError)
  {
    descriptor = try Self.open(path)
    let version = ckvm_get_api_version(descriptor.raw)
    guard version == 12 else {
      throw KVMError(
        .apiVersion,
        version < 0
          ? "\(path) is not KVM's device; is another file in its place?"
          : "\(path) speaks KVM API version \(version), 12 is needed; update the host's kernel")
    }
    for capability in required where value(of: capability) <= 0 {
      throw KVMError(
        .capabilityMissing,
        "the host's KVM lacks \(capability.name); update the host's kernel (Linux 5.10 or newer)")
    }
  }

  private static func open(_ path: String) throws(KVMError) -> FileDescriptor {
    do {
      return try FileDescriptor.open(path, .writable)
    } catch {
      switch error.kind {
      case .notFound:
        throw KVMError(
          .missing,
          "there is no \(path): load the kvm_intel or kvm_amd module, enable virtualization in"
            + " the firmware set-up, or run on a host that offers KVM", cause: error)
      case .permissionDenied:
        throw KVMError(
          .forbidden,
          "\(path) may not be opened: add this user to the group that owns it (usually \"kvm\")",
          cause: error)
      default:
        throw KVMError(.missing, "\(path) could not be opened", cause: error)
      }
    }
  }

  /// 0 when it is missing; 1, or a capability's own value, when there.
  public func value(of capability: KVMCapability) -> Int {
    Int(max(0, ckvm_check_extension(descriptor.raw, capability.number)))
  }

  /// The CPUID leaves that this KVM can show a guest.
  public func supportedCPUID() throws(KVMError) -> [kvm_cpuid_entry2] {
    var entries = [kvm_cpuid_entry2](repeating: kvm_cpuid_entry2(), count: 256)
    let count = try checked(
      ckvm_get_supported_cpuid(descriptor.raw, &entries, UInt32(entries.count)),
      "list the CPUID leaves it supports")
    return Array(entries.prefix(Int(count)))
  }

  /// The model-specific registers that are part of a vCPU's state.
  public func modelSpecificRegisters() throws(KVMError) -> [UInt32] {
    var indices = [UInt32](repeating: 0, count: 1024)
    let count = try checked(
      ckvm_get_msr_index_list(descriptor.raw, &indices, UInt32(indices.count)),
      "list the model-specific registers")
    return Array(indices.prefix(Int(count)))
  }

  func vCPUMapSize() throws(KVMError) -> Int {
    Int(try checked(ckvm_get_vcpu_mmap_size(descriptor.raw), "tell the size of its run page"))
  }

  public func makeMachine() throws(KVMError) -> KVMMachine {
    let machine = try checked(ckvm_create_vm(descriptor.raw), "make a virtual machine")
    return KVMMachine(system: self, descriptor: FileDescriptor(owning: machine))
  }
}
