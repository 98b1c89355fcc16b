import Glibc
import LinuxSystem
import Testing

/// Why a test fails that needs something which is not there.
private struct Missing: Error, CustomStringConvertible {
  let description: String
}

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
    .enabled("needs root, iproute2 and /dev/net/tun, to make TAP interfaces in networks of its own")
    {
      try require(HostFacilities.executable("ip") != nil, "iproute2: 'make deps' installs it")
        && HostFacilities.tap
    }
  }

  /// To compare with.
  public static var needsQEMU: Self { needs("qemu-system-x86_64") }

  /// QEMU's guest agent, to talk to.
  public static var needsGuestAgent: Self {
    needs(Programs.guestAgent != nil, "qemu-ga: 'make deps' installs qemu-guest-agent")
  }

  /// For tests that take more than ten minutes where kernels are interpreted, or anywhere.
  public static var isSlow: Self {
    .enabled(
      if: HostFacilities.wantsSlowTests,
      "takes more than ten minutes where kernels are interpreted: CARREL_SLOW_TESTS=1 runs it")
  }

  /// The Python libraries of `make deps`.
  public static var needsPython: Self {
    needs(Programs.python != nil, "build/venv: 'make deps' makes it")
  }

  /// Programs of the host that are used as they are.
  public static func needs(_ programs: String...) -> Self {
    let missing = programs.filter { HostFacilities.executable($0) == nil }
    return needs(missing.isEmpty, "\(missing.joined(separator: ", ")), not installed here")
  }

  /// A file that a package of Debian's brings.
  public static func needsFile(_ path: String, of package: String) -> Self {
    needs(Files.exists(path), "\(path): 'make deps' installs \(package)")
  }

  /// The demo desktop's kernel.
  public static var needsDemoDesktop: Self {
    needs(Files.exists(Programs.demoDesktop), "the demo desktop: 'make desktop' builds it")
  }

  /// Where `CARREL_REQUIRE_ALL=1` says so, a test without what it needs fails, and says what.
  private static func needs(_ isThere: Bool, _ what: String) -> Self {
    .enabled("needs \(what)") { try require(isThere, what) }
  }

  private static func require(_ isThere: Bool, _ what: String) throws -> Bool {
    guard HostFacilities.requiresAll, !isThere else { return isThere }
    throw Missing(description: "this test needs \(what)")
  }
}
