import CKVM
import CarrelBase
import LinuxSystem

/// What /dev/kvm lacks or refused.
public struct KVMError: CarrelError {
  public enum Kind: Hashable, Sendable {
    /// There is no /dev/kvm.
    case missing
    /// /dev/kvm may not be opened by this user.
    case forbidden
    /// The kernel speaks another API version than 12.
    case apiVersion
    /// The kernel lacks a capability that is needed.
    case capabilityMissing
    /// An ioctl failed.
    case operation
  }

  public let kind: Kind
  public let problem: String
  /// What to do about it, where that is known.
  public let remedy: String?
  public let cause: (any Error)?

  public init(
    _ kind: Kind, _ problem: String, remedy: String? = nil, cause: (any Error)? = nil
  ) {
    self.kind = kind
    self.problem = problem
    self.remedy = remedy
    self.cause = cause
  }

  public var context: String { remedy.map { "\(problem): \($0)" } ?? problem }
}

/// Turns an ioctl's result into a value or a `KVMError` that names the operation.
@discardableResult
func checked(_ result: Int32, _ operation: @autoclosure () -> String) throws(KVMError) -> Int32 {
  guard result < 0 else { return result }
  let operation = operation()
  throw KVMError(
    .operation, "KVM could not \(operation)",
    cause: SystemError(code: -result, "ioctl"))
}

/// Optional parts of KVM, by their capability number.
public struct KVMCapability: Hashable, Sendable {
  public let number: Int32
  public let name: String

  public init(_ number: Int32, _ name: String) {
    self.number = number
    self.name = name
  }

  public static let irqChip = KVMCapability(KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP")
  public static let userMemory = KVMCapability(KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY")
  public static let setTSSAddress = KVMCapability(KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR")
  public static let extendedCPUID = KVMCapability(KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID")
  public static let maximumVCPUs = KVMCapability(KVM_CAP_MAX_VCPUS, "KVM_CAP_MAX_VCPUS")
  public static let coalescedMMIO = KVMCapability(KVM_CAP_COALESCED_MMIO, "KVM_CAP_COALESCED_MMIO")
  public static let coalescedPorts = KVMCapability(KVM_CAP_COALESCED_PIO, "KVM_CAP_COALESCED_PIO")
  public static let irqRouting = KVMCapability(KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING")
  public static let irqFD = KVMCapability(KVM_CAP_IRQFD, "KVM_CAP_IRQFD")
  public static let pit2 = KVMCapability(KVM_CAP_PIT2, "KVM_CAP_PIT2")
  public static let ioEventFD = KVMCapability(KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD")
  public static let xsave = KVMCapability(KVM_CAP_XSAVE, "KVM_CAP_XSAVE")
  public static let xcrs = KVMCapability(KVM_CAP_XCRS, "KVM_CAP_XCRS")
  public static let readOnlyMemory = KVMCapability(KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM")
  public static let immediateExit = KVMCapability(KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT")
  public static let exitOnEmulationFailure = KVMCapability(
    KVM_CAP_EXIT_ON_EMULATION_FAILURE, "KVM_CAP_EXIT_ON_EMULATION_FAILURE")
  public static let tscDeadlineTimer = KVMCapability(
    KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER")
  public static let xsave2 = KVMCapability(KVM_CAP_XSAVE2, "KVM_CAP_XSAVE2")

  /// What every machine needs.
  public static let required: [KVMCapability] = [
    .userMemory, .irqChip, .irqRouting, .pit2, .extendedCPUID, .setTSSAddress, .xsave, .xcrs,
    .readOnlyMemory, .immediateExit, .irqFD, .ioEventFD,
  ]
}
