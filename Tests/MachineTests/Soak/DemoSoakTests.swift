import LinuxSystem
import QMP
import TestSupport
import Testing

/// A demo desktop in a process of its own, into whose editor is typed.
private final class TypedDesktop {
  static let kernel = "\(Programs.repository)/build/demo-desktop/carrel-demo.elf"

  let directory: TemporaryDirectory
  private var running: RunningProgram
  private var line: UnixSocket
  private var heard: [UInt8] = []

  init() throws {
    directory = try TemporaryDirectory()
    (running, line) = try Self.start([], directory)
    // What is said to it before it is ready is lost, and so is what it says to nobody.
    let poller = try Poller()
    try poller.add(line.descriptor, token: 0)
    var isReady = false
    while !isReady {
      try say("clear")
      while !isReady, try !poller.wait(milliseconds: 500).isEmpty {
        isReady = try hear() == "cleared"
      }
    }
  }

  private static func start(
    _ options: [String], _ directory: TemporaryDirectory
  ) throws -> (RunningProgram, UnixSocket) {
    let running = try RunningProgram(
      nil, ["--memory", "64M", "--kernel", kernel, "--serial", "unix:@/serial"] + options,
      in: directory)
    let line = try UnixSocket.connect(
      to: directory.path("serial"), kind: .stream, offeredBy: running.process.handle)
    return (running, line)
  }

  private func say(_ command: String) throws {
    try line.descriptor.writeAll(Array("\(command)\n".utf8))
  }

  /// The next line, without what all begin with.
  private func hear() throws -> String {
    while true {
      if let end = heard.firstIndex(of: 0x0A) {
        let text = String(decoding: heard[..<end].filter { $0 != 0x0D }, as: UTF8.self)
        heard.removeFirst(end + 1)
        let word = "carrel: "
        return text.hasPrefix(word) ? String(text.dropFirst(word.count)) : text
      }
      let received = try line.receive()
      try #require(!received.isEnd, "\(running.errors)")
      heard += received.bytes
    }
  }

  /// What stands in the editor.
  func text() throws -> String {
    try say("text")
    var lines: [String] = []
    while true {
      let line = try hear()
      if line == "end" { return lines.joined(separator: "\n") }
      if line.hasPrefix("text ") { lines.append(String(line.dropFirst(5))) }
    }
  }

  /// Types small letters and line feeds.
  func type(_ letters: String) throws {
    let control = try running.control()
    for letter in letters {
      let name = letter == "\n" ? "ret" : "\(letter)"
      let key: JSON = ["type": "qcode", "data": .string(name)]
      let events = [true, false].map { down -> JSON in
        ["type": "key", "data": ["down": .bool(down), "key": key]]
      }
      try control.execute("input-send-event", ["events": .array(events)])
      while try hear() != "key \(Self.code(of: letter)) up" {}
    }
  }

  /// Set 1 codes, in hexadecimal.
  private static func code(of letter: Character) -> String {
    let rows: [(first: Int, letters: String)] = [
      (0x10, "qwertyuiop[]\n"), (0x1E, "asdfghjkl"), (0x2C, "zxcvbnm"),
    ]
    for (first, letters) in rows {
      guard let place = letters.firstIndex(of: letter) else { continue }
      let number = String(
        first + letters.distance(from: letters.startIndex, to: place), radix: 16)
      return number
    }
    return ""
  }

  func save(_ name: String) throws {
    let control = try running.control()
    try control.execute("carrel-save", ["path": .string(directory.path(name))])
    var event = try control.nextEvent()
    while event.name != "CARREL_SAVE_STATUS" { event = try control.nextEvent() }
    try #require(event.data?["status"] == "completed", "\(event)")
  }

  func suspend(_ name: String) throws {
    try running.control().execute(
      "carrel-save", ["path": .string(directory.path(name)), "suspend": true])
    #expect(try running.process.wait() == .exited(0))
  }

  func kill() throws {
    try running.process.handle.send(.kill)
    _ = try running.process.wait()
  }

  func goOn(from name: String) throws {
    heard = []
    (running, line) = try Self.start(["--restore", directory.path(name)], directory)
  }
}

/// What an administrator does with it at random: the editor has what it had then.
private final class DemoSoaking {
  private struct Kept {
    let name: String
    let text: String
  }

  private let desktop: TypedDesktop
  private let stored: SoakBackups
  private var random: SeededGenerator
  private var snapshots: [Kept] = []
  private var backups: [Kept] = []
  private var text = ""
  private var made = 0

  init(seed: UInt64) throws {
    random = SeededGenerator(seed: seed)
    desktop = try TypedDesktop()
    stored = try SoakBackups(of: desktop.directory)
    try write()
  }

  /// - Returns: what was done.
  func cycle() throws -> String {
    let action = try act()
    #expect(try desktop.text() == text, "after \(action)")
    try write()
    return action
  }

  /// A word more, and sometimes a new line.
  private func write() throws {
    let letters = (0..<Int.random(in: 3...9, using: &random)).map { _ in
      "abcdefghijklmnopqrstuvwxyz".randomElement(using: &random) ?? "a"
    }
    let word = String(letters) + (Int.random(in: 0..<8, using: &random) == 0 ? "\n" : "")
    try desktop.type(word)
    text += word
    try #require(try desktop.text() == text)
  }

  private func act() throws -> String {
    switch Int.random(in: 0..<7, using: &random) {
    case 0, 1:
      snapshots.append(try keep("snapshot"))
      if snapshots.count > 3 {
        try Files.remove(desktop.directory.path(snapshots.removeFirst().name))
      }
      return "snapshot"
    case 2, 3:
      guard let snapshot = snapshots.randomElement(using: &random) else { break }
      try desktop.kill()
      try goOn(from: snapshot)
      return "revert"
    case 4:
      let backup = try keep("backup")
      try stored.add(backup.name, backup.name)
      try Files.remove(desktop.directory.path(backup.name))
      backups.append(backup)
      return "backup"
    case 5:
      let there = backups.filter { stored.tags.contains($0.name) }
      guard let backup = there.randomElement(using: &random) else { break }
      try desktop.kill()
      for snapshot in snapshots { try Files.remove(desktop.directory.path(snapshot.name)) }
      snapshots = []
      try stored.restore(backup.name)
      try goOn(from: backup)
      return "restore"
    default: break
    }
    try desktop.suspend("asleep")
    try desktop.goOn(from: "asleep")
    return "suspend"
  }

  private func keep(_ kind: String) throws -> Kept {
    made += 1
    let kept = Kept(name: "\(kind)\(made)", text: text)
    try desktop.save(kept.name)
    return kept
  }

  private func goOn(from kept: Kept) throws {
    try desktop.goOn(from: kept.name)
    text = kept.text
  }
}

@Suite(
  "The demo desktop's editor, over and over", .needsKVM, .needs("restic"),
  .enabled(
    if: Files.exists(TypedDesktop.kernel), "needs the demo desktop: 'make desktop' builds it"))
struct DemoSoakTests {
  private static let cycles = Soak.cycles("DEMO", usually: 6)

  @Test("has its text after snapshots, returns, sleep and backups")
  func cycles() throws {
    let soaking = try DemoSoaking(seed: 8)
    var done: [String: Int] = [:]
    for number in 1...Self.cycles {
      done[try soaking.cycle(), default: 0] += 1
      if number % 50 == 0 { print("demo soak: \(number) cycles, \(done)") }
    }
    #expect(done.values.reduce(0, +) == Self.cycles)
  }
}
