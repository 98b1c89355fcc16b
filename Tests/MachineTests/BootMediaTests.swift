import DeviceModel
import LinuxSystem
import Machine
import TestSupport
import Testing

/// Loaders that go back and forth between real and protected mode, with the firmware's
/// services and all of its interrupts.
@Suite("Boot media under SeaBIOS", .needsKVM, .serialized)
struct BootMediaTests {
  /// SeaBIOS sends what is written on the screen along the serial line, too.
  private func guest(
    _ image: String?, _ files: TemporaryDirectory, boot: MachineConfiguration.Boot = .firmware
  ) throws -> (Machine, Console) {
    var configuration = MachineConfiguration()
    configuration.memory = 64 << 20
    configuration.cdrom = image
    configuration.bootOrder = [.cdrom]
    configuration.boot = boot
    configuration.serial = .socket(files.path("serial"))
    configuration.firmwareFiles = [
      .init(name: "etc/sercon-port", bytes: [0xF8, 0x03, 0, 0, 0, 0, 0, 0])
    ]
    let machine = try Machine(configuration)
    return (machine, Console(try SerialPeer(configuration)))
  }

  @Test(
    "isolinux comes to its prompt, and reads what is typed there", .needs("xorriso"),
    .enabled(
      if: Files.exists("/usr/lib/ISOLINUX/isolinux.bin"),
      "needs isolinux and syslinux-common: 'make deps' installs them"))
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
    .enabled(
      if: Files.exists("/usr/lib/ipxe/ipxe.iso"), "needs ipxe: 'make deps' installs it"))
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
    .enabled(
      if: Files.exists("/boot/ipxe.lkrn"), "needs ipxe: 'make deps' installs it"))
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

/// A screen in text mode as SeaBIOS sends it.
private final class Console {
  private let peer: SerialPeer
  private var text = ""
  /// What of an escape sequence has come.
  private var escape = ""

  init(_ peer: SerialPeer) { self.peer = peer }

  /// Takes all up to `wanted`. Interpreted firmware takes its time.
  func wait(for wanted: String, on machine: Machine, seconds: UInt64 = 900) throws {
    let deadline = MonotonicClock.now + seconds * 1_000_000_000
    let poller = try Poller()
    try poller.add(peer.socket.descriptor, token: 0)
    while true {
      if let place = text.firstRange(of: wanted) {
        text = String(text[place.upperBound...])
        return
      }
      guard machine.status == .running, MonotonicClock.now < deadline else {
        throw NeverCame(what: "\(wanted); \(machine.stuckReason ?? "it says"): \(text)")
      }
      guard try !poller.wait(milliseconds: 1000).isEmpty else { continue }
      for byte in try peer.socket.receive().bytes { take(Character(Unicode.Scalar(byte))) }
    }
  }

  /// Leaves out escape sequences: ESC c, and ESC [ up to a letter.
  private func take(_ character: Character) {
    if escape.isEmpty {
      if character == "\u{1B}" { escape = "\u{1B}" } else { text.append(character) }
    } else {
      escape.append(character)
      if character.isLetter { escape = "" }
    }
  }
}

extension Machine {
  /// Lower case letters, blanks and ends of lines, on the keyboard.
  func type(_ text: String) {
    let rows: [(first: UInt16, keys: String)] = [
      (0x10, "qwertyuiop"), (0x1C, "\n"), (0x1E, "asdfghjkl"), (0x2C, "zxcvbnm"), (0x39, " "),
    ]
    for character in text {
      for row in rows {
        guard let place = row.keys.firstIndex(of: character) else { continue }
        let offset = row.keys.distance(from: row.keys.startIndex, to: place)
        press([KeyCode(row.first + UInt16(offset))], milliseconds: 20)
      }
    }
  }
}
