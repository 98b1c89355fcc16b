import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("System tables and platform events", .needsKVM)
struct PlatformTests {
  private static let generationPage = 0xE_F000

  private func memory(_ machine: Machine, _ range: Range<Int>) throws -> [UInt8] {
    try machine.save().copiedMemory().map().withBytes { Array($0[range]) }
  }

  /// Takes the event of another generation identifier, sends the identifier's first
  /// byte and switches off. Says "r" when it is ready.
  private var generationProgram: GuestProgram {
    var program = GuestProgram()
    program.outByte(0xB2, 0xF1)
    program.outWord(0x60E, 0x20)
    program.send("r")
    program.port(0x60C)
    program.emit(0x66, 0xED, 0xA8, 0x20, 0x74, 0xFA)  // in ax, dx; test al, 0x20; jz
    program.loadEAX(from: 0xE_F028)
    program.sendAL()
    program.powerOff()
    return program
  }

  @Test("a guest that was started directly hears of another generation identifier")
  func generation() throws {
    let guest = try TestGuest(generationProgram)
    try guest.machine.resume()
    try guest.awaitOutput("r")
    let identifier = try #require(MachineUUID("41000000-0000-4000-8000-000000000001"))
    try guest.machine.changeGeneration(to: identifier)
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    #expect(guest.output == "rA")
  }

  @Test("a copy keeps the identifier, until it is given another one, which its guest hears of")
  func copy() throws {
    let guest = try TestGuest(generationProgram)
    try guest.machine.resume()
    try guest.awaitOutput("r")
    let saved = try guest.machine.save()
    guest.machine.quit()
    let place = Self.generationPage + 40..<Self.generationPage + 56
    let copy = try Machine(guest.machine.configuration, from: saved)
    let before = try saved.copiedMemory().map().withBytes { Array($0[place]) }
    #expect(try memory(copy, place) == before)
    #expect(Set(before).count > 1, "it is random at first")
    let identifier = try #require(MachineUUID("42000000-0000-4000-8000-000000000001"))
    try copy.changeGeneration(to: identifier)
    #expect(try memory(copy, place) == identifier.bytes)
    try copy.resume()
    #expect(copy.waitForEnd() == .guestShutdown)
    #expect(guest.output == "B")
  }

  @Test("SMBIOS lies where it is looked for, with the machine's UUID")
  func smbios() throws {
    var program = GuestProgram()
    program.stop()
    let guest = try TestGuest(program) { configuration, _ in
      configuration.uuid = .derived(from: "desk")
    }
    let bytes = try memory(guest.machine, 0xF_0000..<0xF_1000)
    #expect(bytes.starts(with: Array("_SM_".utf8)))
    #expect(bytes[..<31].reduce(0, &+) == 0)
    let address = bytes[24..<28].reversed().reduce(0) { $0 << 8 | Int($1) }
    let structures = Array(bytes[(address - 0xF_0000)...])
    #expect(structures[0] == 0)
    let uuid = MachineUUID.derived(from: "desk").bytes
    // The last eight bytes are in order.
    let tail = Array(uuid[8...])
    #expect(structures.indices.contains { structures[$0...].starts(with: tail) })
  }

  @Test("a sleeping state that there is not is refused, told of once, and the guest goes on")
  func sleep() throws {
    var program = GuestProgram()
    program.outWord(0x604, 0x2400)
    program.outWord(0x604, 0x2400)
    program.send("x")
    program.powerOff()
    let guest = try TestGuest(program)
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "x")
    #expect(
      guest.events.withLock { $0 } == [
        .resumed, .sleepRefused(type: 1), .ended(.guestShutdown),
      ])
  }

  @Test("the sleep button's status reaches the guest")
  func sleepButton() throws {
    var program = GuestProgram()
    program.send("r")
    program.port(0x600)
    program.emit(0x66, 0xED, 0xF6, 0xC4, 0x02, 0x74, 0xF9)  // in ax, dx; test ah, 2; jz
    program.powerOff()
    let guest = try TestGuest(program)
    try guest.machine.resume()
    try guest.awaitOutput("r")
    try guest.machine.pressSleepButton()
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    #expect(guest.events.withLock { $0.contains(.sleepButtonPressed) })
  }

  @Test(
    "SeaBIOS places the tables, and tells where the generation identifier is",
    arguments: [1, 4])
  func firmware(processors: Int) throws {
    var program = GuestProgram()
    program.stop()
    let guest = try TestGuest(program) { configuration, _ in
      configuration.boot = .firmware
      configuration.processors = processors
      configuration.uuid = .derived(from: "desk")
    }
    try guest.machine.resume()
    func holds(_ bytes: [UInt8], at places: some Sequence<Int>) throws -> Bool {
      try guest.machine.save().copiedMemory().map().withBytes { memory in
        places.contains { memory[$0..<$0 + bytes.count].elementsEqual(bytes) }
      }
    }
    let pages = stride(from: 0, to: 16 << 20, by: 4096).lazy.map { $0 + 40 }
    // At first it is in the page only, later the page's address is known, too.
    let identifier = MachineUUID.derived(from: "generation")
    try guest.machine.changeGeneration(to: identifier)
    try eventually("SeaBIOS to place the page") { try holds(identifier.bytes, at: pages) }
    let second = MachineUUID.derived(from: "second")
    try eventually("SeaBIOS to write the page's address") {
      try guest.machine.changeGeneration(to: second)
      return try holds(second.bytes, at: pages)
    }
    try eventually("SeaBIOS to place the SMBIOS anchor") {
      try holds(Array("_SM_".utf8), at: stride(from: 0xF_0000, to: 0x10_0000, by: 16))
    }
  }
}

@Suite("Machine UUIDs")
struct MachineUUIDTests {
  @Test("text and bytes belong together, in either case")
  func text() throws {
    let uuid = try #require(MachineUUID("01234567-89aB-4def-8012-3456789ABCDE"))
    #expect(uuid.description == "01234567-89ab-4def-8012-3456789abcde")
    #expect(uuid.bytes[..<4] == [0x01, 0x23, 0x45, 0x67])
    #expect(MachineUUID(uuid.description) == uuid)
  }

  @Test(
    "what is no UUID is refused",
    arguments: [
      "", "0123456789ab4def80123456789abcde", "01234567-89ab-4def-8012-3456789abcdg",
      "01234567-89ab-4def-8012-3456789abcde0", "+1234567-89ab-4def-8012-3456789abcde",
      "-01234567-89ab-4def-8012-3456789abcde",
    ])
  func refused(text: String) {
    #expect(MachineUUID(text) == nil)
  }

  @Test("a name has one UUID, of version 8, and another name another")
  func derived() {
    let uuid = MachineUUID.derived(from: "desk-7")
    #expect(uuid == .derived(from: "desk-7"))
    #expect(uuid != .derived(from: "desk-8"))
    #expect(uuid.bytes[6] >> 4 == 8 && uuid.bytes[8] >> 6 == 2)
    // FNV-1a of no bytes is its offset basis.
    #expect(
      MachineUUID.derived(from: "").description == "6c62272e-07bb-8142-a2b8-21756295c58d")
  }

  @Test("random ones differ, and are of version 4")
  func random() {
    let uuid = MachineUUID.random()
    #expect(uuid != .random())
    #expect(uuid.bytes[6] >> 4 == 4 && uuid.bytes[8] >> 6 == 2)
  }
}
