import Glibc
import LinuxSystem
import Machine
import QMP
import Snapshot
import TestSupport
import Testing

@Suite("Snapshots of machines", .needsKVM)
struct MachineSnapshotTests {
  /// Fills 4 MiB of memory on the way, over and over.
  private var program: GuestProgram {
    .summing(steps: 60_000) { program in
      program.emit(0x89, 0xDA)  // mov edx, ebx
      program.emit(0x81, 0xE2)  // and edx, 0x3ffffc
      program.emit(word: 0x3F_FFFC)
      program.emit(0x01, 0x9A)  // add [edx + 0x400000], ebx
      program.emit(word: 0x40_0000)
      program.emit(0x8B, 0x82)  // mov eax, [edx + 0x400000]
      program.emit(word: 0x40_0000)
      program.emit(0x01, 0x05)  // add [0x200000], eax
      program.emit(word: 0x20_0000)
    }
  }

  private func request(
    _ guest: TestGuest, _ identifier: MachineUUID, base: MachineUUID? = nil,
    pagesInPause: Int = 4096
  ) -> SnapshotRequest {
    var request = SnapshotRequest(
      path: guest.directory.path("\(identifier).snapshot"), identifier: identifier, base: base,
      created: 1)
    request.pagesInPause = pagesInPause
    return request
  }

  private func open(_ guest: TestGuest, _ identifier: MachineUUID) throws -> SavedMachine {
    let chain = try SnapshotChain(
      path: guest.directory.path("\(identifier).snapshot")
    ) { bytes in MachineUUID(bytes: bytes).map { guest.directory.path("\($0).snapshot") } }
    try chain.verify()
    return try SavedMachine(chain)
  }

  private func result(_ guest: TestGuest, from saved: SavedMachine) throws -> [UInt8] {
    let machine = try Machine(guest.machine.configuration, from: saved)
    try machine.resume()
    #expect(machine.waitForEnd() == .guestShutdown)
    return Array(try guest.directory.read("serial").suffix(4))
  }

  /// Waits until the guest has written more.
  private func awaitMore(_ guest: TestGuest) throws {
    let count = try guest.directory.read("serial").count
    try eventually("output") { try guest.directory.read("serial").count > count }
  }

  @Test(
    "taken while the guest runs, each goes on to the same result, and so does the guest",
    arguments: [4096, 0])
  func live(pagesInPause: Int) throws {
    let guest = try TestGuest(program)
    try guest.machine.resume()
    try eventually("output") { try !guest.directory.read("serial").isEmpty }
    let identifiers = (0..<4).map { _ in MachineUUID.random() }
    for (index, identifier) in identifiers.enumerated() {
      let base = index == 0 ? nil : identifiers[index - 1]
      let report = try guest.machine.saveSnapshot(
        request(guest, identifier, base: base, pagesInPause: pagesInPause))
      #expect(report.isDifferential == (index > 0))
      if index < 3 { try awaitMore(guest) }
    }
    #expect(guest.machine.waitForEnd() == .guestShutdown)
    let expected = Array(try guest.directory.read("serial").suffix(4))
    for identifier in identifiers {
      #expect(try result(guest, from: try open(guest, identifier)) == expected)
    }
  }

  @Test("a guest that cannot go on is saved where it stands, and tried there again")
  func stuck() throws {
    var program = GuestProgram()
    program.emit(0xB0, 0x61)  // mov al, 'a'
    program.sendAL()
    program.jumpIntoNothing()
    let guest = try TestGuest(program)
    try guest.machine.resume()
    let text = guest.waitUntilStuck()
    let identifier = MachineUUID.random()
    try guest.machine.saveSnapshot(request(guest, identifier))
    #expect(guest.machine.stuckReason == text)
    guest.machine.quit()
    let second = try Machine(guest.machine.configuration, from: try open(guest, identifier))
    #expect(second.stuckReason == nil, "another version may know what this one did not")
    try second.resume()
    try eventually("the guest to stop again") { second.stuckReason != nil }
    #expect(second.stuckReason == text)
    second.quit()
  }

  @Test("one that completes another has only what changed, and without its base is refused")
  func differential() throws {
    var program = GuestProgram()
    program.emit(0xFE, 0x05)  // inc byte [0x200000]
    program.emit(word: 0x20_0000)
    program.emit(0xEB, 0xF8)  // jmp back
    let guest = try TestGuest(program) { configuration, _ in configuration.memory = 64 << 20 }
    try guest.machine.resume()
    let (first, second) = (MachineUUID.random(), MachineUUID.random())
    try guest.machine.saveSnapshot(request(guest, first))
    let report = try guest.machine.saveSnapshot(request(guest, second, base: first))
    #expect(report.isDifferential)
    let file = try SnapshotFile(path: guest.directory.path("\(second).snapshot"))
    let pages = try #require(file.memory("ram")?.stored.count)
    #expect(pages >= 1 && pages < 20, "\(pages)")
    // Of another snapshot than the last one, nothing is known.
    let third = MachineUUID.random()
    let whole = try guest.machine.saveSnapshot(request(guest, third, base: first))
    #expect(!whole.isDifferential)
    guest.machine.quit()
    try Files.remove(guest.directory.path("\(first).snapshot"))
    let error = #expect(throws: SnapshotError.self) { try open(guest, second) }
    #expect(error?.kind == .wrongBase)
    #expect(throws: Never.self) { try open(guest, third) }
  }

  @Test("a restored machine can be saved again, and again")
  func again() throws {
    let undisturbed = try TestGuest(program)
    #expect(try undisturbed.run() == .guestShutdown)
    let expected = Array(try undisturbed.directory.read("serial").suffix(4))
    let guest = try TestGuest(program)
    var machine = guest.machine
    try machine.resume()
    for _ in 0..<3 {
      try awaitMore(guest)
      let identifier = MachineUUID.random()
      try machine.suspend(to: request(guest, identifier))
      #expect(machine.waitForEnd() == .suspended)
      machine.tearDown()
      machine = try Machine(guest.machine.configuration, from: try open(guest, identifier))
      try machine.resume()
    }
    #expect(machine.waitForEnd() == .guestShutdown)
    #expect(Array(try guest.directory.read("serial").suffix(4)) == expected)
  }

  @Test("memory that was never touched takes no room in it")
  func sparse() throws {
    var program = GuestProgram()
    program.stop()
    let guest = try TestGuest(program) { configuration, _ in configuration.memory = 1 << 30 }
    try guest.machine.resume()
    let identifier = MachineUUID.random()
    try guest.machine.saveSnapshot(request(guest, identifier))
    guest.machine.quit()
    var status = stat()
    #expect(stat(guest.directory.path("\(identifier).snapshot"), &status) == 0)
    #expect(status.st_blocks * 512 < 4 << 20)
    let copy = try Machine(guest.machine.configuration, from: try open(guest, identifier))
    #expect(copy.hostMemory < 4 << 20)
  }

  @Test("another machine than the one that was saved is refused, and told how it differs")
  func others() throws {
    let guest = try TestGuest(program) { configuration, files in
      configuration.disks = [
        .init(path: try files.write([UInt8](repeating: 0, count: 1 << 20), to: "disk"))
      ]
      configuration.networks = [.init(.none, queues: 2)]
    }
    let identifier = MachineUUID.random()
    try guest.machine.saveSnapshot(request(guest, identifier))
    guest.machine.tearDown()
    let saved = try open(guest, identifier)
    let larger = try guest.directory.write([UInt8](repeating: 0, count: 2 << 20), to: "larger")
    let changes: [(String, (inout MachineConfiguration) -> Void)] = [
      ("another amount of memory", { $0.memory = 32 << 20 }),
      ("2 processors instead of 1", { $0.processors = 2 }),
      ("has usb", { $0.hasUSB = true }),
      ("lacks virtio-balloon", { $0.hasBalloon = false }),
      ("2097152 bytes instead of 1048576", { $0.disks[0].path = larger }),
      ("another number of disks", { $0.disks = [] }),
      ("virtio-net0 has queues=1 instead of queues=2", { $0.networks[0].queues = 1 }),
    ]
    for (text, change) in changes {
      var configuration = guest.machine.configuration
      change(&configuration)
      let error = #expect(throws: MachineError.self) {
        try Machine(configuration, from: saved)
      }
      #expect(error?.description.contains(text) == true, "\(text): \(String(describing: error))")
    }
  }

  @Test("when it cannot be written the guest goes on, and nothing is left behind")
  func unwritable() throws {
    let guest = try TestGuest(program)
    try guest.machine.resume()
    for suspends in [false, true] {
      let request = SnapshotRequest(
        path: guest.directory.path("missing/snapshot"), identifier: .random(), created: 0)
      #expect(throws: SnapshotError.self) {
        if suspends {
          try guest.machine.suspend(to: request)
        } else {
          try guest.machine.saveSnapshot(request)
        }
      }
    }
    #expect(guest.machine.waitForEnd() == .guestShutdown)
  }

  @Test("the program saves itself, ends, and goes on in another process")
  func suspends() throws {
    let directory = try TemporaryDirectory()
    let arguments = ["--vga", "none", "--serial", "@/serial"]
    let first = try RunningProgram(program, arguments, in: directory)
    try eventually("output") { !first.text("serial").isEmpty }
    let control = try first.control()
    let path = directory.path("saved")
    try control.execute("carrel-save", ["path": .string(path), "suspend": true])
    var event = try control.nextEvent()
    while event.name != "CARREL_SAVE_STATUS" { event = try control.nextEvent() }
    #expect(event.data?["status"] == "completed", "\(event)")
    #expect(try first.process.wait() == .exited(0))
    #expect(try first.exitRecord()["reason"] == "suspended")
    let second = try RunningProgram(
      program, arguments + ["--restore", "\(path),remove=on"], in: directory)
    #expect(try second.process.wait() == .exited(0), "\(second.errors)")
    #expect(try second.exitRecord()["reason"] == "guest-shutdown")
    #expect(!Files.exists(path) && !Files.exists(WorkingSet.path(of: path)))
    let undisturbed = try TestGuest(program)
    #expect(try undisturbed.run() == .guestShutdown)
    let expected = try undisturbed.directory.read("serial").suffix(4)
    #expect(try directory.read("serial").suffix(4) == expected)
  }
}
