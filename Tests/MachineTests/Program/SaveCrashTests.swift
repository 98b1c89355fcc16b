import Glibc
import LinuxSystem
import Machine
import QMP
import Snapshot
import TestSupport
import Testing

extension GuestProgram {
  /// Counts in each page of 48 MiB, one after the other, over and over. Says '.' for each turn,
  /// and '!' when a page does not have the number of turns that its registers know of.
  fileprivate static var counting: GuestProgram {
    var program = GuestProgram()
    program.emit(0x31, 0xDB)  // xor ebx, ebx
    let turn = program.bytes.count
    program.emit(0xBF)  // mov edi, 2 MiB
    program.emit(word: 2 << 20)
    let page = program.bytes.count
    program.emit(0x39, 0x1F)  // cmp [edi], ebx
    program.emit(0x75, 0x1B)  // jne to the end
    program.emit(0xFF, 0x07)  // inc dword [edi]
    program.emit(0x81, 0xC7)  // add edi, 4096
    program.emit(word: 4096)
    program.emit(0x81, 0xFF)  // cmp edi, the end
    program.emit(word: UInt32(2 << 20 + 48 << 20))
    program.jump(0x72, to: page)  // jb
    program.emit(0x43)  // inc ebx
    program.outByte(0x3F8, UInt8(ascii: "."))
    program.jump(0xEB, to: turn)
    program.outByte(0x3F8, UInt8(ascii: "!"))
    program.stop()
    return program
  }
}

/// A real machine whose process is killed while it is being saved.
@Suite("Saving machines whose process is killed", .needsKVM, .serialized)
struct SaveCrashTests {
  private let directory: TemporaryDirectory
  private var saved: String { directory.path("saved") }

  init() throws { directory = try TemporaryDirectory() }

  /// A guest that says '.' again and again, and '!' when its memory is not of one instant.
  private struct Subject {
    let program: GuestProgram
    let memoryMiB: Int
    /// Of memory that the guest uses.
    let used: UInt64
    /// Whether it goes on from what is saved each time. What is restored from a file is not
    /// protected from writes.
    var goesOn = true

    /// More than is copied while it stands, written to faster than it is copied.
    static let writing = Subject(
      program: .writing(pages: 20480), memoryMiB: 112, used: 20480 << 12, goesOn: false)

    static let counting = Subject(program: .counting, memoryMiB: 64, used: 48 << 20)
  }

  /// What is to have come of a save when the machine is killed.
  enum Moment: CustomStringConvertible {
    /// So many percent of memory, roughly.
    case written(Int)
    /// All of it, and looked so many times more.
    case nearEnd(Int)
    /// The new file is in its place.
    case placed

    var description: String {
      switch self {
      case .written(let percent): "at \(percent) %"
      case .nearEnd(let turns): "\(turns) turns after memory"
      case .placed: "when it is in its place"
      }
    }
  }

  static let moments: [Moment] =
    [0, 10, 25, 40, 60, 80, 95].map { .written($0) } + [0, 3, 10, 30, 100].map { .nearEnd($0) }
    + [.placed]

  @Test(
    "have the old one or the new one, whole, whenever it is, and run on from it",
    arguments: [false, true])
  func killed(suspends: Bool) throws { try killed(.counting, suspends: suspends) }

  @Test(
    "have it, too, when what is written meanwhile is stored behind",
    .enabled(if: protectsMemory, "needs userfaultfd"), arguments: [false, true])
  func killedBehind(suspends: Bool) throws { try killed(.writing, suspends: suspends) }

  private func killed(_ subject: Subject, suspends: Bool) throws {
    var identifier = try save(subject, suspends: false, until: nil)
    var outcomes: [Bool] = []
    for moment in Self.moments {
      let new = try save(subject, suspends: suspends, until: moment)
      let chain = try SnapshotChain(path: saved) { _ in nil }
      try chain.verify()
      let found = try #require(MachineUUID(bytes: chain.newest.identifier))
      #expect(found == identifier || found == new, "\(moment): another one is there")
      outcomes.append(found == new)
      identifier = found
    }
    #expect(outcomes.first == false && outcomes.last == true, "\(outcomes)")
    // What was left is no hindrance, and goes.
    let last = try save(subject, suspends: suspends, until: nil)
    #expect(try SnapshotFile(path: saved).identifier == last.bytes)
    let left = try directory.run("ls saved*").output.split(separator: "\n")
    #expect(!left.contains("saved.new"), "\(left)")
    var goingOn = subject
    goingOn.goesOn = true
    _ = try save(goingOn, suspends: true, until: nil)
  }

  /// Has a machine go on from what is saved, if anything is, and be saved; kills it at that
  /// moment, or lets it come to its end.
  ///
  /// - Returns: what the new snapshot is called.
  private func save(
    _ subject: Subject, suspends: Bool, until moment: Moment?
  ) throws -> MachineUUID {
    let restoring = subject.goesOn && Files.exists(saved) ? ["--restore", "@/saved"] : []
    let identifier = MachineUUID.random()
    let serial = "serial-\(identifier)"
    let machine = try RunningProgram(
      subject.program,
      [
        "--memory", "\(subject.memoryMiB)M", "--vga", "none", "--net", "none", "--serial",
        "@/\(serial)",
      ] + restoring, in: directory)
    let control = try machine.control()
    try eventually("the guest to come around") {
      let output = machine.text(serial)
      try #require(!output.contains("!"), "memory is not of one instant")
      return output.count(where: { $0 == "." }) >= 2
    }
    let before = try? inode(saved)
    try control.execute(
      "carrel-save",
      ["path": .string(saved), "id": .string("\(identifier)"), "suspend": .bool(suspends)])
    if let moment {
      try reach(moment, before, of: subject.used)
      try machine.process.handle.send(.kill)
      let exit = try machine.process.wait()
      // Suspended, it may have been faster.
      #expect(exit == .signalled(.kill) || suspends && exit == .exited(0), "\(moment)")
    } else if suspends {
      #expect(try machine.process.wait() == .exited(0))
    } else {
      var event = try control.nextEvent()
      while event.name != "CARREL_SAVE_STATUS" { event = try control.nextEvent() }
      try #require(event.data?["status"] == "completed", "\(event)")
    }
    return identifier
  }

  private func reach(_ moment: Moment, _ before: UInt64?, of used: UInt64) throws {
    switch moment {
    case .written(let percent):
      try eventually("\(moment)") { try isPlaced(before) || draft(of: used) >= percent }
    case .nearEnd(let turns):
      try eventually("\(moment)") { try isPlaced(before) || draft(of: used) >= 100 }
      var turn = 0
      try eventually("\(moment)") {
        turn += 1
        return turn > turns
      }
    case .placed: try eventually("\(moment)") { try isPlaced(before) }
    }
  }

  /// How many percent of memory are in the new file.
  private func draft(of used: UInt64) -> Int {
    guard let file = try? FileDescriptor.open(saved + ".new") else { return -1 }
    return Int(file.storedBytes * 100 / used)
  }

  private func isPlaced(_ before: UInt64?) throws -> Bool { try inode(saved) != before }

  private func inode(_ path: String) throws -> UInt64 {
    // SAFETY: stat fills the structure given or fails.
    var status = stat()
    guard stat(path, &status) == 0 else { throw SystemError(code: errno, "look at \(path)") }
    return UInt64(status.st_ino)
  }
}
