import Glibc
import LinuxSystem

/// What this host offers to tests. A test that needs more than plain Linux says so
/// with a trait such as `.needsKVM`, so that a host without it says what was left out.
public enum HostFacilities {
  /// Whether tests fail, rather than being left out, where what they need is missing and could
  /// be there: /dev/kvm, programs, and what is built.
  public static let requiresAll = environment("CARREL_REQUIRE_ALL") == "1"

  /// Whether /dev/kvm opens. `CARREL_REQUIRE_KVM=1` makes tests run, and fail,
  /// where it does not.
  public static let kvm: Bool = {
    if requiresAll || environment("CARREL_REQUIRE_KVM") == "1" { return true }
    let descriptor = open("/dev/kvm", O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else { return false }
    close(descriptor)
    return true
  }()

  /// Whether tests may make TAP interfaces, and bridges for them, in networks of their own.
  public static let tap: Bool = {
    guard executable("ip") != nil else { return false }
    return (try? OwnNetwork.run { _ = try TAPInterface("carrel0") }) != nil
  }()

  /// Whether `CARREL_SLOW_TESTS=1` asks for tests that take more than ten minutes.
  public static let wantsSlowTests = environment("CARREL_SLOW_TESTS") == "1"

  /// Whether Debian's QEMU is installed, the peer of many comparisons.
  public static let qemu = executable("qemu-system-x86_64") != nil

  /// The first executable of that name on PATH.
  public static func executable(_ name: String) -> String? {
    let path = environment("PATH") ?? "/usr/bin:/bin"
    for directory in path.split(separator: ":") {
      let candidate = "\(directory)/\(name)"
      if access(candidate, X_OK) == 0 { return candidate }
    }
    return nil
  }

  private static func environment(_ name: String) -> String? {
    // SAFETY: getenv returns nil or a NUL-terminated string; tests never call setenv.
    guard let value = getenv(name) else { return nil }
    return String(cString: value)
  }
}
