import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("A machine's life", .needsKVM)
struct LifecycleTests {
  @Test("a program at the reset vector writes to the serial port and switches off")
  func romGuest() throws {
    var program = GuestProgram()
    // Real mode: mov dx,0x3f8; mov al,'A'; out dx,al; mov dx,0x604; mov ax,0x2000; out dx,ax
    program.emit(0xBA, 0xF8, 0x03, 0xB0, 0x41, 0xEE)
    // The power management registers must be placed first: they are by firmware.
    // mov eax,0x80000b40; mov dx,0xcf8; out dx,eax; mov dx,0xcfc; mov eax,0x601; out dx,eax
    program.emit(0x66, 0xB8, 0x40, 0x0B, 0x00, 0x80, 0xBA, 0xF8, 0x0C, 0x66, 0xEF)
    program.emit(0xBA, 0xFC, 0x0C, 0x66, 0xB8, 0x01, 0x06, 0x00, 0x00, 0x66, 0xEF)
    // the same for the enable bit at 0x80
    program.emit(0x66, 0xB8, 0x80, 0x0B, 0x00, 0x80, 0xBA, 0xF8, 0x0C, 0x66, 0xEF)
    program.emit(0xBA, 0xFC, 0x0C, 0xB0, 0x01, 0xEE)
    program.emit(0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF, 0xF4, 0xEB, 0xFD)
    let guest = try TestGuest(program, isROM: true)
    #expect(guest.machine.status == .prelaunch)
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "A")
    #expect(guest.events.withLock { $0 } == [.resumed, .ended(.guestShutdown)])
    #expect(throws: MachineError.self) { try guest.machine.resume() }
  }

  @Test("the guest's reset starts it anew, with its kernel loaded again, and is told")
  func guestReset() throws {
    var program = GuestProgram()
    // A counter beyond the kernel survives; the kernel's own word does not.
    program.countStarts()
    program.emit(0x3C, 0x33, 0x74, 0x08)  // cmp al, '3'; je past the reset
    program.outByte(0xCF9, 0x06)
    program.powerOff()
    let guest = try TestGuest(program)
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "123")
    let resets = guest.events.withLock { events in
      events.filter { $0 == .reset(.guest("reset control register (0xCF9)")) }
    }
    #expect(resets.count == 2)
  }

  @Test("a reset has the kernel from the file of the start, and says when that was cut off")
  func kernelFile() throws {
    var program = GuestProgram()
    program.countStarts()
    program.stop()
    let guest = try TestGuest(program)
    let path = guest.directory.path("program")
    let file = try FileDescriptor.open(path, .writable)
    try guest.machine.resume()
    try guest.awaitOutput("1")
    // As a package's upgrade does.
    try Files.replace(path, with: [1, 2, 3])
    try guest.machine.reset()
    try guest.awaitOutput("12")
    try file.setSize(100)
    let error = #expect(throws: MachineError.self) { try guest.machine.reset() }
    #expect(error?.description.contains("program has become shorter") == true)
    guard case .internalError(let reason) = guest.machine.waitForEnd() else {
      Issue.record("\(guest.machine.waitForEnd())")
      return
    }
    #expect(reason.contains("start the machine anew with the whole file"), "\(reason)")
  }

  @Test("a triple fault resets the machine and says so")
  func tripleFault() throws {
    var program = GuestProgram()
    program.countStarts()
    program.emit(0x3C, 0x33, 0x74, 0x09)  // cmp al, '3'; je past the fault
    program.tripleFault()
    program.powerOff()
    let guest = try TestGuest(program)
    #expect(try guest.run() == .guestShutdown)
    #expect(guest.output == "123")
    let reset = MachineEvent.reset(.guest("triple fault"))
    #expect(
      guest.events.withLock { $0 } == [.resumed, reset, reset, .ended(.guestShutdown)])
  }

  @Test("where resets end the machine, a triple fault does, and keeps its name")
  func tripleFaultEnds() throws {
    var program = GuestProgram()
    program.tripleFault()
    let guest = try TestGuest(program) { configuration, _ in configuration.endsOnReset = true }
    #expect(try guest.run() == .tripleFault)
    #expect(guest.events.withLock { $0.last } == .ended(.tripleFault))
    #expect(guest.machine.endReason?.word == "triple-fault")
  }

  @Test("where resets end the machine, it ends with the register that was used")
  func resetEnds() throws {
    var program = GuestProgram()
    program.outByte(0x64, 0xFE)
    program.stop()
    let guest = try TestGuest(program) { configuration, _ in configuration.endsOnReset = true }
    let reason = EndReason.guestReset("keyboard controller (0x64)")
    #expect(try guest.run() == reason)
    #expect(guest.events.withLock { $0 } == [.resumed, .ended(reason)])
    #expect(reason.word == "guest-reset")
  }

  @Test("a guest that cannot go on is paused, says where it was, and goes on after a reset")
  func stuck() throws {
    var program = GuestProgram()
    program.jumpIntoNothing()
    let guest = try TestGuest(program)
    try guest.machine.resume()
    let text = guest.waitUntilStuck()
    let place = "at 0xd0000000, CPL 0: guest code runs where there is no memory"
    #expect(text.contains(place), "\(text)")
    #expect(guest.machine.status == .paused)
    #expect(guest.machine.stuckReason == text)
    #expect(throws: MachineError.self) { try guest.machine.resume() }
    try guest.machine.reset()
    #expect(guest.waitUntilStuck(times: 2) == text)
    #expect(
      guest.events.withLock { $0 } == [
        .resumed, .stuck(text), .reset(.user), .resumed, .stuck(text),
      ])
    guest.machine.quit()
  }

  @Test("a guest that cannot go on ends the machine where that was asked for")
  func stuckEnds() throws {
    var program = GuestProgram()
    program.jumpIntoNothing()
    let guest = try TestGuest(program) { configuration, _ in configuration.endsWhenStuck = true }
    let reason = try guest.run()
    guard case .internalError(let text) = reason else {
      Issue.record("\(reason)")
      return
    }
    #expect(text.contains("at 0xd0000000, CPL 0"), "\(text)")
    #expect(guest.events.withLock { $0 } == [.resumed, .stuck(text), .ended(reason)])
  }

  @Test("pause stops the guest and its time; resume lets both go on")
  func pauseAndResume() throws {
    var program = GuestProgram()
    program.emit(0xFF, 0x05)  // inc dword [0x200000]
    program.emit(word: 0x20_0000)
    program.emit(0xEB, 0xF8)  // jmp back
    let guest = try TestGuest(program)
    try guest.machine.resume()
    try guest.machine.pause()
    #expect(guest.machine.status == .paused)
    let first = try guest.machine.save()
    let second = try guest.machine.save()
    let counts = try [first, second].map { try $0.copiedMemory().map().withBytes { $0[0x20_0000] } }
    #expect(counts[0] == counts[1])
    #expect(first.livedNanoseconds == second.livedNanoseconds)
    try guest.machine.resume()
    while try guest.machine.save().copiedMemory().map().withBytes({ $0[0x20_0000] }) == counts[0] {}
    #expect(guest.events.withLock { $0 } == [.resumed, .paused, .resumed])
    guest.machine.quit()
    #expect(guest.machine.endReason == .quit)
  }

  @Test("a machine that was never started can be torn down, twice")
  func tearDown() throws {
    var program = GuestProgram()
    program.stop()
    let guest = try TestGuest(program)
    guest.machine.tearDown()
    guest.machine.tearDown()
    #expect(guest.machine.endReason == .quit)
  }

  @Test("a machine that is let go of leaves nothing behind")
  func release() throws {
    var program = GuestProgram()
    program.send("x")
    program.stop()
    struct Part {
      let name: String
      weak var object: AnyObject?
    }
    weak var machine: Machine?
    var parts: [Part] = []
    do {
      let guest = try TestGuest(program) { configuration, directory in
        let image = [UInt8](repeating: 0, count: 1 << 20)
        configuration.disks = [.init(path: try directory.write(image, to: "disk"))]
        configuration.display = .standard
      }
      try guest.machine.resume()
      machine = guest.machine
      parts.append(Part(name: "board", object: guest.machine.hardware))
      for child in Mirror(reflecting: guest.machine.hardware).children
      where type(of: child.value) is AnyClass {
        parts.append(Part(name: child.label ?? "", object: child.value as AnyObject))
      }
    }
    #expect(machine == nil)
    #expect(parts.count > 15)
    #expect(parts.filter { $0.object != nil }.map(\.name) == [])
  }

  @Test("reset from outside starts a halted guest anew")
  func reset() throws {
    var program = GuestProgram()
    program.send("x")
    program.stop()
    let guest = try TestGuest(program)
    try guest.machine.resume()
    try guest.awaitOutput("x")
    try guest.machine.reset()
    try guest.awaitOutput("xx")
    #expect(guest.events.withLock { $0 } == [.resumed, .reset(.user)])
  }

  @Test("RAM above 4 GiB is there, and the hole below it is not RAM")
  func highMemory() throws {
    var program = GuestProgram()
    program.loadEAX(from: 0xD000_0000)
    program.sendAL()
    program.powerOff()
    let guest = try TestGuest(program) { configuration, _ in configuration.memory = 4 << 30 }
    #expect(try guest.run() == .guestShutdown)
    #expect(try guest.directory.read("serial") == [0xFF])
  }

  @Test(
    "what cannot be is refused before anything is built",
    arguments: [(4096, 1), (1 << 24, 0), (1 << 24, 65), (1 << 24 + 1, 1)] as [(UInt64, Int)])
  func configuration(memory: UInt64, processors: Int) {
    var configuration = MachineConfiguration()
    configuration.memory = memory
    configuration.processors = processors
    let error = #expect(throws: MachineError.self) { try configuration.validate() }
    #expect(error?.kind == .configuration)
  }
}
