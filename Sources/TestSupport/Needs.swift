import Glibc
import Testing

/// What a test needs of its host, with the reason that is told where it is left out.
extension Trait where Self == ConditionTrait {
  public static var needsKVM: Self {
    .enabled(if: HostFacilities.kvm, "needs /dev/kvm: 'carrel doctor' says what is missing")
  }

  /// To mount file systems or make namespaces.
  public static var needsRoot: Self {
    .enabled(if: geteuid() == 0, "needs root, to mount file systems and make namespaces")
  }

  /// To give processes less memory than there is.
  public static var needsMemoryGroup: Self {
    .enabled(
      if: MemoryGroup.canBeMade, "needs root and the memory controller of control groups")
  }

  /// To put machines on bridges.
  public static var needsTAP: Self {
    .enabled(
      if: HostFacilities.tap,
      "needs root, iproute2 and /dev/net/tun, to make TAP interfaces in networks of their own")
  }

  /// To compare with.
  public static var needsQEMU: Self { needs("qemu-system-x86_64") }

  /// QEMU's guest agent, to talk to.
  public static var needsGuestAgent: Self {
    .enabled(
      if: Programs.guestAgent != nil, "needs qemu-ga: 'make deps' installs qemu-guest-agent")
  }

  /// For tests that take more than ten minutes where kernels are interpreted.
  public static var isSlow: Self {
    .enabled(
      if: HostFacilities.wantsSlowTests,
      "takes more than ten minutes where kernels are interpreted: CARREL_SLOW_TESTS=1 runs it")
  }

  /// The Python libraries of `make deps`.
  public static var needsPython: Self {
    .enabled(if: Programs.python != nil, "needs build/venv: 'make deps' makes it")
  }

  /// Programs of the host that are used as they are.
  public static func needs(_ programs: String...) -> Self {
    let missing = programs.filter { HostFacilities.executable($0) == nil }
    return .enabled(
      if: missing.isEmpty, "needs \(missing.joined(separator: ", ")), not installed here")
  }
}
