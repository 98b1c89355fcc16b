import Glibc
import LinuxSystem
import Machine
import QMP
import Snapshot
import TestSupport
import Testing

/// Saved machines that are whole, but of which somebody changed what devices, processors
/// or the configuration were: an import from another site, say.
@Suite(
  "Machines that go on from states with bad intentions", .needsKVM, .serialized,
  .timeLimit(.minutes(60)))
struct HostileStateTests {
  /// `CARREL_HOSTILE_STATES` says how many are tried.
  private static let tries =
    getenv("CARREL_HOSTILE_STATES").flatMap { Int(String(cString: $0)) } ?? 40
  private static let seed =
    getenv("CARREL_HOSTILE_SEED").flatMap { UInt64(String(cString: $0)) } ?? 1

  private let directory: TemporaryDirectory
  private let arguments: [String]

  init() throws {
    directory = try TemporaryDirectory()
    var arguments = [
      "--memory", "4M", "--video-memory", "1M", "--vga", "virtio,outputs=2", "--net", "none",
      "--usb", "--audio", "ac97", "--channel", "name=test,socket=@/channel", "--vsock",
      "cid=3,socket=@/vsock", "--serial", "@/serial",
    ]
    for name in ["ide,bus=ide", "second,bus=ide", "virtio,bus=virtio,queues=2"] {
      try directory.write(
        [UInt8](repeating: 0, count: 1 << 16), to: String(name.prefix { $0 != "," }))
      arguments += ["--disk", "@/\(name)"]
    }
    self.arguments = arguments
  }

  /// Reads from each port of a device, and writes what it read; looks at the legacy window and
  /// at what PCI functions have in memory. Says '.' after each turn.
  private var program: GuestProgram {
    var program = GuestProgram()
    let turn = program.bytes.count
    let ports: [(ClosedRange<UInt16>, isWritten: Bool)] = [
      (0x60...0x61, false), (0x64...0x64, false), (0x70...0x71, true), (0x170...0x177, true),
      (0x1CE...0x1D0, true), (0x1F0...0x1F7, true), (0x376...0x376, true), (0x3B0...0x3DF, true),
      (0x3F6...0x3F6, true), (0x3F8...0x3FF, false), (0x402...0x402, false),
      (0x510...0x51B, true), (0x600...0x603, true), (0xCFC...0xCFF, false),
      (0x5658...0x565B, false), (0xC000...0xC7FF, true),
    ]
    for (range, isWritten) in ports {
      program.port(range.lowerBound)
      let next = program.bytes.count
      program.emit(0xEC)  // in al, dx
      if isWritten { program.emit(0xEE) }  // out dx, al
      program.emit(0x42, 0x81, 0xFA)  // inc edx; cmp edx, end
      program.emit(word: UInt32(range.upperBound) + 1)
      program.jump(0x75, to: next)  // jne
    }
    let memory: [(start: UInt32, end: UInt32, step: UInt32)] = [
      (0xA_0000, 0xC_0000, 0x3FC), (0xFD00_0000, 0xFD20_0000, 0x7FFC),
      (0xFE00_0000, 0xFE10_0000, 0x3FC),
    ]
    for range in memory {
      program.emit(0xBF)  // mov edi, start
      program.emit(word: range.start)
      let next = program.bytes.count
      program.emit(0x8B, 0x07, 0x89, 0x07)  // mov eax, [edi]; mov [edi], eax
      program.emit(0x81, 0xC7)  // add edi, step
      program.emit(word: range.step)
      program.emit(0x81, 0xFF)  // cmp edi, end
      program.emit(word: range.end)
      program.jump(0x72, to: next)  // jb
    }
    program.outByte(0x3F8, UInt8(ascii: "."))
    let back = Int32(turn - program.bytes.count - 5)
    program.emit(0xE9)  // jmp to the turn
    program.emit(word: UInt32(bitPattern: back))
    return program
  }

  @Test("refuse them, or run: no process dies of them")
  func survive() throws {
    let whole = try save()
    var generator = SeededGenerator(seed: Self.seed)
    var outcomes: [String: Int] = [:]
    for number in 1...Self.tries {
      let place = try change(whole, using: &generator)
      let outcome = try goOn()
      outcomes["\(outcome)", default: 0] += 1
      if case .signalled = outcome {
        Issue.record("try \(number), \(place): \(outcome): \(try directory.read("errors").tail)")
      }
      if number % 100 == 0 { print("hostile states: \(number): \(outcomes)") }
    }
    print("hostile states: \(outcomes)")
    #expect(outcomes["exited(0)", default: 0] > 0, "no machine went on: \(outcomes)")
  }

  /// A machine that was saved when it had looked at everything once.
  private func save() throws -> SnapshotFile {
    let machine = try RunningProgram(program, arguments, in: directory)
    let control = try machine.control()
    try eventually("a turn") { machine.text("serial").contains(".") }
    let identifier = MachineUUID.random()
    let path = directory.path("\(identifier).snapshot")
    try control.execute(
      "carrel-save", ["path": .string(path), "id": .string("\(identifier)"), "suspend": true])
    #expect(try machine.process.wait() == .exited(0))
    return try SnapshotFile(path: path)
  }

  /// Writes one that completes it, with the same memory.
  ///
  /// - Returns: what was changed.
  private func change(
    _ whole: SnapshotFile, using generator: inout SeededGenerator
  ) throws -> String {
    let writer = try SnapshotWriter(
      path: directory.path("changed"), identifier: MachineUUID.random().bytes,
      base: whole.identifier, created: 1)
    let part = Int.random(in: 0..<10, using: &generator) == 0 ? "machine" : "devices"
    var place = ""
    for name in whole.sectionNames {
      var bytes = try #require(whole.section(name))
      if name == part {
        let change =
          name == "devices"
          ? StateMutation.change(archive: bytes, using: &generator)
          : StateMutation.change(state: bytes, using: &generator)
        (bytes, place) = try #require(change)
      }
      try writer.add(name, bytes)
    }
    for memory in whole.memories { _ = try writer.addMemory(memory.name, size: memory.size) }
    try writer.finish()
    return place
  }

  /// Has a machine go on from there, and be used.
  private func goOn() throws -> ChildProcess.Exit {
    _ = try? Files.remove(directory.path("serial"))
    _ = try? Files.remove(directory.path("control"))
    let machine = try RunningProgram(
      program, arguments + ["--restore", "@/changed"], in: directory)
    // Some refuse to start, and some end meanwhile.
    try? use(machine)
    return try machine.process.wait()
  }

  private func use(_ machine: RunningProgram) throws {
    let control = try machine.control()
    func keep(_ command: String, _ arguments: JSON? = nil) {
      _ = try? control.execute(command, arguments)
    }
    keep("screendump", ["filename": .string(directory.path("picture"))])
    let key: JSON = ["type": "qcode", "data": "a"]
    keep("send-key", ["keys": [key], "hold-time": 1])
    for axis in ["abs", "rel"] {
      let move: JSON = ["type": .string(axis), "data": ["axis": "x", "value": 500]]
      keep("input-send-event", ["events": [move]])
    }
    for query in ["query-block", "query-balloon", "query-cpus-fast"] { keep(query) }
    keep("balloon", ["value": 2_097_152])
    keep("set_link", ["name": "net0", "up": true])
    keep("inject-nmi")
    // A guest whose processor was changed may never come around.
    try? eventually("a turn", seconds: 1) { machine.text("serial").contains(".") }
    keep("screendump", ["filename": .string(directory.path("picture"))])
    keep("carrel-save", ["path": .string(directory.path("again"))])
    keep("system_reset")
    keep("quit")
  }
}

extension [UInt8] {
  fileprivate var tail: String { String(decoding: suffix(400), as: UTF8.self) }
}
