import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Files that a guest is given", .needsKVM)
struct FirmwareFileTests {
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
    while !guest.output.hasPrefix("A") {}
    try Files.remove(path)
    let seen = guest.output.utf8.count
    while guest.output.utf8.count < seen + 20 {}
    try Files.replace(path, with: Array("B".utf8))
    while !guest.output.hasSuffix("B") {}
    try Files.replace(path, with: Array("C".utf8))
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    // Each letter once, in order.
    let letters = guest.output.reduce(into: "") { if $0.last != $1 { $0.append($1) } }
    #expect(letters == "ABC")
  }
}
