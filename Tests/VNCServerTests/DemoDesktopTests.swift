import Glibc
import TestSupport
import Testing

/// assets/demo-desktop/check.py: keys, layouts, windows, scenes, pointers and power of
/// the demo desktop, as it was built last (`make desktop`).
@Suite(
  "The demo desktop", .needsKVM,
  .timeLimit(.minutes(10)), .serialized)
struct DemoDesktopTests {
  private static let directory = "\(Programs.repository)/assets/demo-desktop"

  private func check(_ arguments: String) throws {
    let directory = try TemporaryDirectory()
    let (status, output) = try directory.run(
      "python3 \(Self.directory)/check.py \(Programs.demoDesktop) \(arguments) 2>&1")
    #expect(status == 0, "\(output)")
  }

  @Test(
    "does all it says in the carrel-vmm of this build, and follows to another user",
    .needsDemoDesktop)
  func carrelVMM() throws {
    try check("--vmm \(Programs.built("carrel-vmm"))")
  }

  @Test(
    "does all it says in QEMU, with the PS/2 mouse too",
    .needsDemoDesktop,
    .needsQEMU)
  func qemu() throws {
    try check("")
  }
}
