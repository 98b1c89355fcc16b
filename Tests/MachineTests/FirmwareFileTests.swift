import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Files that a guest is given", .needsKVM)
struct FirmwareFileTests {
  private func failure(_ names: [String]) -> MachineError? {
    var configuration = MachineConfiguration()
    configuration.memory = 16 << 20
    configuration.disks = []
    configuration.cdrom = "/dev/null"
    configuration.firmwareFiles = names.map { .init(name: $0, bytes: [1]) }
    return #expect(throws: MachineError.self) { try Machine(configuration) }
  }

  @Test(
    "names that the machine itself provides are refused",
    arguments: ["etc/e820", "etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader", "bootorder"])
  func provided(name: String) {
    let error = failure(["opt/a", name])
    #expect(error?.kind == .configuration)
    #expect(
      error?.context == "the machine itself provides the fw_cfg file \"\(name)\"; choose another"
        + " name, such as \"opt/\(name)\"")
  }

  @Test("two files of one name are refused, and so is what cannot be a name")
  func names() {
    #expect(failure(["opt/a", "opt/b", "opt/a"])?.context.contains("\"opt/a\"") == true)
    for name in ["", "a b", "é", String(repeating: "x", count: 56)] {
      #expect(failure([name])?.context.contains("cannot be a fw_cfg file's name") == true)
    }
  }

  @Test("a guest that looks again sees what was written meanwhile, and keeps what was deleted")
  func rewritten() throws {
    // By its name it comes first, and so its key is 0x20.
    var program = GuestProgram()
    let loop = program.bytes.count
    program.outWord(0x510, 0x20)
    program.port(0x511)
    program.emit(0xEC)  // in al, dx
    program.sendAL()
    program.emit(0x3C, 0x43, 0x75)  // cmp al, 'C'; jne loop
    program.emit(UInt8(truncatingIfNeeded: loop - program.bytes.count - 1))
    program.powerOff()
    var path = ""
    let guest = try TestGuest(program) { configuration, directory in
      path = try directory.write(Array("A".utf8), to: "name")
      configuration.firmwareFiles = [.init(name: "a/name", bytes: Array("A".utf8), path: path)]
    }
    try guest.machine.resume()
    try eventually("an A") { guest.output.hasPrefix("A") }
    try Files.remove(path)
    let seen = guest.output.utf8.count
    try eventually("more output") { guest.output.utf8.count >= seen + 20 }
    try Files.replace(path, with: Array("B".utf8))
    try eventually("a B") { guest.output.hasSuffix("B") }
    try Files.replace(path, with: Array("C".utf8))
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    // Each letter once, in order.
    let letters = guest.output.reduce(into: "") { if $0.last != $1 { $0.append($1) } }
    #expect(letters == "ABC")
  }
}
