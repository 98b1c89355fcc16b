import DeviceModel
import LinuxSystem
import Machine
import QMP
import Snapshot
import TestSupport
import Testing

@Suite("What a guest needs first when it goes on", .needsKVM)
struct GuestWorkingSetTests {
  private static let pageAtWork = 0x20_0000 / DirtyPages.pageSize

  /// Writes to 40 MiB once, sends "+", and then counts in a single page, sending "." at times.
  private static var program: GuestProgram {
    var program = GuestProgram()
    program.emit(0xBF)  // mov edi, 16 MiB
    program.emit(word: 16 << 20)
    program.emit(0xB9)  // mov ecx, 10240
    program.emit(word: 10240)
    program.emit(0x89, 0x3F, 0x81, 0xC7)  // mov [edi], edi; add edi, 4096
    program.emit(word: 4096)
    program.emit(0x49, 0x75, 0xF5)  // dec ecx; jnz
    program.send("+")
    let loop = program.bytes.count
    program.emit(0xFF, 0x05)  // inc dword [0x200000]
    program.emit(word: 0x20_0000)
    program.emit(0xF7, 0x05)  // test dword [0x200000], 0x3fff
    program.emit(word: 0x20_0000)
    program.emit(word: 0x3FFF)
    program.jump(0x75, to: loop)
    program.send(".")
    program.jump(0xEB, to: loop)
    return program
  }

  private func start(
    _ directory: TemporaryDirectory, _ serial: String, _ options: [String] = []
  ) throws -> RunningProgram {
    try RunningProgram(
      Self.program, ["--memory", "64M", "--vga", "none", "--serial", "@/\(serial)"] + options,
      in: directory)
  }

  private func awaitCounting(_ running: RunningProgram, _ serial: String) throws {
    try eventually("the guest to count") { running.text(serial).contains(".") }
  }

  private func save(
    _ running: RunningProgram, _ name: String, _ more: [String: JSON] = [:]
  ) throws {
    let control = try running.control()
    let arguments: [String: JSON] = ["path": .string(running.directory.path(name))]
    try control.execute("carrel-save", .object(arguments.merging(more) { $1 }))
    var event = try control.nextEvent()
    while event.name != "CARREL_SAVE_STATUS" { event = try control.nextEvent() }
    #expect(event.data?["status"] == "completed", "\(event)")
  }

  private func kill(_ running: RunningProgram) throws {
    try running.process.handle.send(.kill)
    _ = try running.process.wait()
  }

  private func open(_ directory: TemporaryDirectory) throws -> (SnapshotFile, WorkingSet?) {
    let file = try SnapshotFile(path: directory.path("saved"))
    return (file, try WorkingSet(of: file, memory: Machine.memoryName))
  }

  /// A snapshot, and the directory that it is in.
  private func snapshot(_ more: [String: JSON] = [:]) throws -> TemporaryDirectory {
    let directory = try TemporaryDirectory()
    let running = try start(directory, "serial0")
    try awaitCounting(running, "serial0")
    try save(running, "saved", more)
    if more.isEmpty { try kill(running) } else { _ = try running.process.wait() }
    return directory
  }

  @Test("what is touched after the first time is kept, and checked first the next time")
  func recorded() throws {
    let directory = try snapshot()
    #expect(try open(directory).1 == nil)
    let first = try start(directory, "serial1", ["--restore", "@/saved,check=first"])
    try awaitCounting(first, "serial1")
    // Saving touches all of memory, so that it is due before.
    try save(first, "again")
    try kill(first)
    let (file, set) = try open(directory)
    let pages = try #require(set?.pages)
    let stored = try #require(file.memory("ram")?.stored)
    #expect(stored.count > 10240)
    #expect(pages.contains(page: Self.pageAtWork) && pages.count < stored.count / 4)

    let unneeded = try #require(
      (0..<16384).first { stored.contains(page: $0) && !pages.contains(page: $0) })
    let second = try start(directory, "serial2", ["--restore", "@/saved,check=first"])
    try awaitCounting(second, "serial2")
    try kill(second)
    #expect(try open(directory).1 == set, "it stays what it is")
    #expect(second.errors == "")

    try damage(file, page: unneeded)
    let third = try start(directory, "serial3", ["--restore", "@/saved,check=first"])
    #expect(try third.process.wait() == .exited(1))
    #expect(third.errors.contains("page \(unneeded) of memory ram"), "\(third.errors)")
    try damage(file, page: Self.pageAtWork)
    for (serial, check) in [("serial4", "first"), ("serial5", "all")] {
      let refused = try start(directory, serial, ["--restore", "@/saved,check=\(check)"])
      #expect(try refused.process.wait() == .exited(1))
      #expect(refused.text(serial).isEmpty, "it never ran")
    }
  }

  private func damage(_ file: SnapshotFile, page: Int) throws {
    let offset = try #require(file.memory("ram")).offset
    let writer = try FileDescriptor.open(file.path, .writable)
    try writer.write([0xEE, 0xFF, 0xEE][...], offset: offset + UInt64(page * 4096 + 100))
  }

  @Test("a damaged one is not used, and said so", arguments: ["all", "first"])
  func damaged(check: String) throws {
    let directory = try snapshot()
    try directory.write([UInt8](repeating: 0xFF, count: 5000), to: "saved.workingset")
    let running = try start(directory, "serial1", ["--restore", "@/saved,check=\(check)"])
    try awaitCounting(running, "serial1")
    #expect(running.errors.contains("goes on without it"), "\(running.errors)")
  }

  @Test("a suspended guest leaves what it touched last, which goes with the file")
  func suspended() throws {
    let directory = try snapshot(["suspend": true])
    let (file, set) = try open(directory)
    let pages = try #require(set?.pages)
    let stored = try #require(file.memory("ram")?.stored)
    #expect(pages.contains(page: Self.pageAtWork), "\(pages.count)")
    #expect(pages.count < stored.count / 4, "\(pages.count) of \(stored.count)")
    let second = try start(directory, "serial1", ["--restore", "@/saved,remove=on,check=first"])
    try awaitCounting(second, "serial1")
    #expect(!Files.exists(directory.path("saved")))
    #expect(!Files.exists(WorkingSet.path(of: directory.path("saved"))))
    // Of a machine that was suspended before, it is what it was, and what the guest writes.
    try save(second, "saved", ["suspend": true])
    _ = try second.process.wait()
    let again = try #require(try open(directory).1?.pages)
    var both = again
    both.formIntersection(pages)
    #expect(both == pages && again.count < stored.count / 4, "\(again.count)")
  }
}
