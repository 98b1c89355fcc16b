import CNativeCode
import LinuxSystem
import Machine
import Snapshot
import TestSupport
import Testing

@Suite("UEFI and its variables", .needsKVM)
struct UEFITests {
  private static let code = "OVMF_CODE_4M.fd"
  private static let variables = "OVMF_VARS_4M.fd"

  /// In place of UEFI: a program that finds out whether it was here before.
  private func firmware(in directory: TemporaryDirectory) throws {
    let program = GuestProgram(CGUEST_FLASH).bytes
    var image = program + [UInt8](repeating: 0x90, count: 0x1_0000 - program.count)
    // At the reset vector: jmp to the image's first byte.
    image.replaceSubrange(0xFFF0..<0xFFF3, with: [0xE9, 0x0D, 0x00])
    try directory.write(image, to: Self.code)
    try directory.write([UInt8](repeating: 0xFF, count: 0x4000), to: Self.variables)
  }

  private func configuration(
    in directory: TemporaryDirectory, variables: String?
  ) -> MachineConfiguration {
    var configuration = MachineConfiguration()
    configuration.memory = 16 << 20
    configuration.display = .none
    configuration.boot = .uefi(variables: variables)
    configuration.uefiDirectory = directory.path("")
    configuration.serial = .file(directory.path("serial"))
    return configuration
  }

  private func run(in directory: TemporaryDirectory, variables: String?) throws -> String {
    var configuration = configuration(in: directory, variables: variables)
    configuration.endsOnReset = true
    let machine = try Machine(configuration)
    // Its last thread may outlive this, and with it the lock on the variables.
    defer { machine.tearDown() }
    try machine.resume()
    #expect(machine.waitForEnd().word == "guest-reset")
    return String(decoding: try directory.read("serial"), as: UTF8.self)
  }

  @Test("what is written to the flash is in the file, and found by the next machine")
  func kept() throws {
    let directory = try TemporaryDirectory()
    try firmware(in: directory)
    let file = directory.path("nvram")
    #expect(try run(in: directory, variables: file) == "n")
    var expected = [UInt8](repeating: 0xFF, count: 0x4000)
    expected[0x1000] = 0x41
    #expect(try directory.read("nvram") == expected)
    #expect(try run(in: directory, variables: file) == "o")
    #expect(try run(in: directory, variables: directory.path("other")) == "n")
    // Without a file the template stays what it is.
    #expect(try run(in: directory, variables: nil) == "n")
    #expect(try run(in: directory, variables: nil) == "n")
    #expect(try directory.read(Self.variables) == Array(repeating: 0xFF, count: 0x4000))
  }

  @Test("a machine is restored with its variables")
  func restored() throws {
    let directory = try TemporaryDirectory()
    try firmware(in: directory)
    var configuration = configuration(in: directory, variables: directory.path("nvram"))
    let first = try Machine(configuration)
    try first.resume()
    try eventually("two starts") {
      try directory.read("serial").starts(with: Array("no".utf8))
    }
    let saved = try first.save()
    first.tearDown()
    configuration.boot = .uefi(variables: nil)
    configuration.serial = .file(directory.path("again"))
    let second = try Machine(configuration, from: saved)
    try second.resume()
    try eventually("a start") { try directory.read("again").starts(with: Array("o".utf8)) }
    second.quit()
  }

  @Test("clones have the variables of their template, each in a file of its own")
  func cloned() throws {
    let directory = try TemporaryDirectory()
    try firmware(in: directory)
    var configuration = configuration(in: directory, variables: directory.path("nvram"))
    let first = try Machine(configuration)
    try first.resume()
    try eventually("a start") { try directory.read("serial").starts(with: Array("no".utf8)) }
    try first.saveSnapshot(
      SnapshotRequest(path: directory.path("saved"), identifier: .random(), created: 0))
    let expected = try directory.read("nvram")
    #expect(expected.contains(0x41))
    // A template needs no file, nor does it touch the one that is there.
    let template = try MachineTemplate(
      configuration, from: try SnapshotChain(path: directory.path("saved")) { _ in nil })
    first.tearDown()
    try directory.write(Array(repeating: 0, count: expected.count), to: "used")
    for name in ["new", "used"] {
      configuration.boot = .uefi(variables: directory.path(name))
      configuration.serial = .file(directory.path("serial-\(name)"))
      let clone = try template.prepare().become(configuration)
      #expect(try directory.read(name) == expected)
      try clone.resume()
      try eventually("a start") {
        try directory.read("serial-\(name)").starts(with: Array("o".utf8))
      }
      // The file is locked: no other clone has it.
      let error = #expect(throws: MachineError.self) {
        try template.prepare().become(configuration)
      }
      #expect(error?.description.contains("that no other machine uses") == true)
      clone.tearDown()
    }
    try directory.write([1], to: "short")
    configuration.boot = .uefi(variables: directory.path("short"))
    #expect(throws: MachineError.self) { try template.prepare().become(configuration) }
    #expect(try directory.read("short") == [1])
  }

  @Test(
    "Debian's firmware comes to its shell, which does what it is told", .isSlow,
    .needsFile("/usr/share/OVMF/\(code)", of: "ovmf"))
  func shell() throws {
    let directory = try TemporaryDirectory()
    let (machine, peer) = try debian(directory)
    defer { machine.tearDown() }
    try machine.resume()
    _ = try peer.read(until: "Shell> ", seconds: 3600)
    try peer.socket.descriptor.writeAll(Array("map\r".utf8))
    _ = try peer.read(until: "Shell> ", seconds: 600)
    try peer.socket.descriptor.writeAll(Array("reset -s\r".utf8))
    #expect(machine.waitForEnd() == .guestShutdown)
  }

  @Test(
    "a variable that is set in the shell of Debian's firmware is there after the next start",
    .isSlow,
    .needsFile("/usr/share/OVMF/\(code)", of: "ovmf"))
  func keptByFirmware() throws {
    let directory = try TemporaryDirectory()
    let vendor = "a1a2a3a4-b1b2-c1c2-d1d2-e1e2e3e4e5e6"
    // UEFI 2.10, section 2.3: its first three fields are little-endian. The name is in UCS-2.
    let entry: [UInt8] =
      [0xA4, 0xA3, 0xA2, 0xA1, 0xB2, 0xB1, 0xC2, 0xC1, 0xD1, 0xD2]
      + [0xE1, 0xE2, 0xE3, 0xE4, 0xE5, 0xE6] + "carrel\0".utf16.flatMap { [UInt8($0), 0] }
    let template = try Files.read("/usr/share/OVMF/\(Self.variables)")
    #expect(template.firstRange(of: entry) == nil)
    try inShell(directory) { console, machine in
      try console.type("setvar carrel -guid \(vendor) -nv -bs =0x4849\n", on: machine)
    }
    let file = try directory.read("nvram")
    #expect(file.count == template.count)
    let found = try #require(file.firstRange(of: entry + [0x49, 0x48]))
    // What is before it is of a variable that is whole (3Fh), kept, and for boot services.
    let header = file[(found.lowerBound - 44)..<found.lowerBound]
    #expect(header.prefix(8) == [0xAA, 0x55, 0x3F, 0, 3, 0, 0, 0], "\(header)")
    try inShell(directory) { console, machine in
      try console.type("setvar carrel -guid \(vendor)\n", on: machine)
      let said = try console.wait(for: "Shell> ", on: machine).uppercased()
      #expect(said.contains("CARREL") && said.contains("49 48"), "\(said)")
      try console.type("\n", on: machine)
    }
  }

  /// A machine with Debian's firmware and the variables of a file, and the far end of its line.
  private func debian(_ directory: TemporaryDirectory) throws -> (Machine, SerialPeer) {
    var configuration = MachineConfiguration()
    configuration.memory = 256 << 20
    configuration.display = .none
    configuration.boot = .uefi(variables: directory.path("nvram"))
    configuration.serial = .socket(directory.path("serial"))
    return (try Machine(configuration), try SerialPeer(configuration))
  }

  /// Starts Debian's firmware with the variables of a file, and ends it from its shell.
  private func inShell(
    _ directory: TemporaryDirectory, _ body: (Console, Machine) throws -> Void
  ) throws {
    let (machine, peer) = try debian(directory)
    defer { machine.tearDown() }
    let console = Console(peer)
    try machine.resume()
    try console.wait(for: "Shell> ", on: machine, seconds: 7200)
    try body(console, machine)
    try console.wait(for: "Shell> ", on: machine)
    try console.type("reset -s\n", on: machine)
    #expect(machine.waitForEnd() == .guestShutdown)
  }

  @Test("files that cannot hold the variables are refused, with what to do")
  func refused() throws {
    let directory = try TemporaryDirectory()
    func problem(_ variables: String?) -> String {
      do {
        _ = try run(in: directory, variables: variables)
        return ""
      } catch {
        return "\(error)"
      }
    }
    #expect(problem(nil).contains("install Debian's package ovmf"))
    try firmware(in: directory)
    let short = try directory.write([1, 2, 3], to: "short")
    #expect(problem(short).contains("has 3 bytes; the variables of this UEFI have 16384"))
    #expect(try directory.read("short") == [1, 2, 3])
    #expect(problem(directory.path("none/nvram")).contains("none/nvram cannot be used"))
    #expect(problem(directory.path("")).contains("cannot be used"))
    let used = try directory.write([UInt8](repeating: 0xFF, count: 0x4000), to: "used")
    let owner = try FileDescriptor.open(used, [.writable])
    try owner.lock(exclusive: true)
    #expect(problem(used).contains("that no other machine uses"))
    try directory.write([UInt8](repeating: 0xFF, count: 5000), to: Self.variables)
    #expect(problem(nil).contains("not whole blocks"))
  }
}
