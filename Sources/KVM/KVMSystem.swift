import CKVM
import LinuxSystem

/// /dev/kvm: what the host's KVM offers, and where machines come from.
public final class KVMSystem: Sendable {
  /// The one that KVM has had since Linux 2.6.22.
  public static let apiVersion: Int32 = 12

  let descriptor: FileDescriptor

  /// Opens /dev/kvm and checks that it has all that a machine needs.
  ///
  /// - Throws: kinds `missing`, `forbidden`, `apiVersion`, `capabilityMissing`,
  ///   each with the remedy.
  public init(path: String = "/dev/kvm", required: [KVMCapability] = KVMCapability.required)
    throws(KVMError)
  {
    descriptor = try Self.open(path)
    if let error = Self.problem(withVersion: ckvm_get_api_version(descriptor.raw), of: path) {
      throw error
    }
    for capability in required {
      if let (_, error) = problem(with: capability) { throw error }
    }
  }

  /// What is wrong with the version that `path` answered; a negative one is an error.
  package static func problem(withVersion version: Int32, of path: String) -> KVMError? {
    guard version != apiVersion else { return nil }
    guard version >= 0 else {
      return KVMError(
        .apiVersion, "\(path) is not KVM's device",
        remedy: "look what took its place, and load the kvm_intel or kvm_amd module")
    }
    return KVMError(
      .apiVersion, "\(path) speaks KVM API version \(version), \(apiVersion) is needed",
      remedy: "update the host's kernel")
  }

  /// The error of a capability that is missing.
  public func problem(with capability: KVMCapability) -> (KVMCapability, KVMError)? {
    guard value(of: capability) <= 0 else { return nil }
    return (
      capability,
      KVMError(
        .capabilityMissing, "the host's KVM lacks \(capability.name)",
        remedy: "update the host's kernel (Linux 5.10 or newer)")
    )
  }

  private static func open(_ path: String) throws(KVMError) -> FileDescriptor {
    do {
      return try FileDescriptor.open(path, .writable)
    } catch {
      switch error.kind {
      case .notFound:
        throw KVMError(
          .missing, "there is no \(path)",
          remedy: "load the kvm_intel or kvm_amd module, enable virtualization in the firmware"
            + " set-up, or run on a host that offers KVM", cause: error)
      case .permissionDenied:
        throw KVMError(
          .forbidden, "\(path) may not be opened",
          remedy: "add this user to the group that owns it (usually \"kvm\")", cause: error)
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
