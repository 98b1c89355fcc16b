import LinuxSystem
import Machine
import QMP
import TestSupport
import Testing

@Suite("What a machine has, and changes from outside", .needsKVM)
struct InventoryTests {
  /// Takes an NMI by a handler that sends "n" and switches off.
  private var nmiProgram: GuestProgram {
    var handler = GuestProgram()
    handler.send("n")
    handler.powerOff()
    var program = GuestProgram()
    program.emit(0xEB, UInt8(handler.bytes.count))  // jmp past the handler
    program = handler.following(program)
    // A descriptor table with 32-bit code at 10, and an interrupt table up to vector 3.
    for (value, address): (UInt32, UInt32) in [
      (0x3000_001F, 0x7FF0), (0x30, 0x7FF4), (0xFFFF, 0x30_3010), (0x00CF_9B00, 0x30_3014),
      (0x4000_001F, 0x7FE0), (0x30, 0x7FE4), (0x0010_0002, 0x30_4010), (0x0010_8E00, 0x30_4014),
    ] { program.store(value, at: address) }
    program.emit(0xBC)  // mov esp, 300000
    program.emit(word: 0x30_0000)
    program.emit(0x0F, 0x01, 0x15)  // lgdt [7ff0]
    program.emit(word: 0x7FF0)
    program.emit(0x0F, 0x01, 0x1D)  // lidt [7fe0]
    program.emit(word: 0x7FE0)
    program.store(0x1FF, at: 0xFEE0_00F0)
    program.store(0x400, at: 0xFEE0_0360)  // LINT1 is NMI
    program.send("r")
    program.stop()
    return program
  }

  @Test("an NMI reaches a guest that lets it through, and no other")
  func interrupt() throws {
    let guest = try TestGuest(nmiProgram) { configuration, _ in configuration.processors = 2 }
    // LINT1 is masked after power-on: without a handler this would be the end.
    try guest.machine.injectNMI()
    try guest.machine.resume()
    try guest.awaitOutput("r")
    try guest.machine.injectNMI()
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    #expect(guest.output == "rn")
    #expect(throws: MachineError.self) { try guest.machine.injectNMI() }
  }

  @Test("each processor has a thread of this process")
  func processors() throws {
    var program = GuestProgram()
    program.stop()
    let guest = try TestGuest(program) { configuration, _ in configuration.processors = 3 }
    try eventually("all threads to run") { guest.machine.processorDescriptions.count == 3 }
    let list = guest.machine.processorDescriptions
    #expect(list.map(\.index) == [0, 1, 2])
    #expect(Set(list.map(\.threadIdentifier)).count == 3)
    for processor in list {
      let name = try Files.read("/proc/self/task/\(processor.threadIdentifier)/comm")
      #expect(name == Array("vcpu\(processor.index)\n".utf8))
    }
    guest.machine.tearDown()
    #expect(guest.machine.processorDescriptions.isEmpty)
  }

  @Test("drives are told of with their media, which are ejected and changed")
  func media() throws {
    var program = GuestProgram()
    program.stop()
    let guest = try TestGuest(program) { configuration, directory in
      let image = [UInt8](repeating: 0, count: 1 << 20)
      configuration.disks = [
        .init(path: try directory.write(image, to: "fast"), bus: .virtio),
        .init(path: try directory.write(image, to: "disk")),
      ]
      configuration.cdrom = try directory.write(Array(image.prefix(4096)), to: "a.iso")
      try directory.write(Array(image.prefix(8192)), to: "b.iso")
    }
    func drive() throws -> DriveDescription {
      try #require(guest.machine.driveDescriptions.first { $0.isRemovable })
    }
    #expect(guest.machine.driveDescriptions.map(\.name) == ["virtio0", "ide0-hd0", "ide1-cd0"])
    let disk = guest.machine.driveDescriptions[1]
    #expect(disk.name == "ide0-hd0" && disk.medium?.size == 1 << 20 && !disk.isRemovable)
    #expect(try drive().name == "ide1-cd0" && Machine.cdromName == "ide1-cd0")
    #expect(try drive().medium?.path == guest.directory.path("a.iso"))
    try guest.machine.changeMedium(to: guest.directory.path("b.iso"))
    #expect(try drive().medium?.size == 8192)
    #expect(try drive().isTrayOpen == false)
    let error = #expect(throws: MachineError.self) {
      try guest.machine.changeMedium(to: guest.directory.path("none.iso"))
    }
    #expect(error?.kind == .image)
    #expect(try drive().medium?.size == 8192, "what was there stays")
    try guest.machine.eject()
    #expect(try drive().medium == nil)
    #expect(try drive().isTrayOpen)
    try guest.machine.changeMedium(to: guest.directory.path("a.iso"))
    #expect(try drive().isTrayOpen == false)
    guest.machine.quit()
    #expect(throws: MachineError.self) { try guest.machine.eject() }
  }

  @Test("the control socket lists processors and drives, and changes media")
  func controlSocket() throws {
    let directory = try TemporaryDirectory()
    try directory.write([UInt8](repeating: 0, count: 4096), to: "a.iso")
    try directory.write([UInt8](repeating: 0, count: 8192), to: "b.iso")
    var program = GuestProgram()
    program.stop()
    let running = try RunningProgram(program, ["--cdrom", "@/a.iso", "--cpus", "2"], in: directory)
    let control = try running.control()
    #expect(try control.execute("query-cpus-fast").elements?.count == 2)
    func medium() throws -> JSON? {
      try control.execute("query-block").elements?.last?["inserted"]?["image"]?["virtual-size"]
    }
    #expect(try medium() == 4096)
    _ = try control.execute(
      "blockdev-change-medium",
      ["id": "ide1-cd0", "filename": .string(directory.path("b.iso"))])
    #expect(try medium() == 8192)
    _ = try control.execute("eject", ["id": "ide1-cd0"])
    #expect(try medium() == nil)
    // Before it there may be the one of the change, which left the tray closed.
    while true {
      let event = try control.nextEvent()
      guard event.name == "DEVICE_TRAY_MOVED", event.data?["tray-open"] == true else { continue }
      #expect(event.data?["device"] == "ide1-cd0")
      break
    }
    _ = try control.execute("inject-nmi")
  }
}
