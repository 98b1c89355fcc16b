import DeviceModel
import LinuxSystem
import Machine
import TestSupport
import Testing

/// Loaders that go back and forth between real and protected mode, with the firmware's
/// services and all of its interrupts.
@Suite("Boot media under SeaBIOS", .needsKVM, .serialized)
struct BootMediaTests {
  private func guest(
    _ image: String?, _ files: TemporaryDirectory, boot: MachineConfiguration.Boot = .firmware
  ) throws -> (Machine, Console) {
    var configuration = MachineConfiguration()
    configuration.memory = 64 << 20
    configuration.cdrom = image
    configuration.bootOrder = [.cdrom]
    configuration.boot = boot
    configuration.sendScreen(to: files.path("serial"))
    let machine = try Machine(configuration)
    return (machine, Console(try SerialPeer(configuration)))
  }

  @Test(
    "isolinux comes to its prompt, and reads what is typed there", .needs("xorriso"),
    .needsFile("/usr/lib/ISOLINUX/isolinux.bin", of: "isolinux"),
    .needsFile("/usr/lib/syslinux/modules/bios/ldlinux.c32", of: "syslinux-common"))
  func isolinux() throws {
    let files = try TemporaryDirectory()
    let (status, output) = try files.run(
      "cd \(files.path("")) && mkdir -p tree/isolinux && cd tree/isolinux"
        + " && cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 ."
        + " && printf 'SAY Here it is\\nPROMPT 1\\n' >isolinux.cfg && cd ../.."
        + " && xorriso -as mkisofs -quiet -o image.iso -b isolinux/isolinux.bin"
        + " -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table tree 2>&1")
    #expect(status == 0, "\(output)")
    let (machine, console) = try guest(files.path("image.iso"), files)
    defer { machine.tearDown() }
    try machine.resume()
    try console.wait(for: "Here it is", on: machine)
    try console.wait(for: "boot:", on: machine)
    machine.type("linux\n")
    try console.wait(for: "Loading linux... failed: No such file", on: machine)
  }

  @Test(
    "iPXE comes to its command line", .needs("passt"),
    .needsFile("/usr/lib/ipxe/ipxe.iso", of: "ipxe"))
  func ipxe() throws {
    let files = try TemporaryDirectory()
    let (machine, console) = try guest("/usr/lib/ipxe/ipxe.iso", files)
    defer { machine.tearDown() }
    try machine.resume()
    try console.wait(for: "Press Ctrl-B", on: machine)
    machine.press([KeyCode(0x1D), KeyCode(0x30)], milliseconds: 50)
    try console.wait(for: "iPXE>", on: machine)
    machine.type("show version\n")
    try console.wait(for: "1.0.0", on: machine)
  }

  /// That kernel has nothing but an entry for real mode, and takes its command line as a
  /// script.
  @Test(
    "iPXE comes to its command line as a kernel, and finds its command line and RAM disk",
    .needsFile("/boot/ipxe.lkrn", of: "ipxe"))
  func ipxeKernel() throws {
    let files = try TemporaryDirectory()
    let (machine, console) = try guest(
      nil, files,
      boot: .kernel(
        path: "/boot/ipxe.lkrn",
        initialRAMDisk: try files.write([UInt8](repeating: 7, count: 4711), to: "disk"),
        commandLine: "echo as it was told && imgstat && shell"))
    defer { machine.tearDown() }
    try machine.resume()
    try console.wait(for: "iPXE 1.0.0", on: machine)
    try console.wait(for: "as it was told", on: machine)
    try console.wait(for: ": 4711 bytes", on: machine)
    try console.wait(for: "iPXE>", on: machine)
    machine.type("show version\n")
    try console.wait(for: "1.0.0", on: machine)
  }
}
