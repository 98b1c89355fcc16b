import Foundation

/// A carreld with one pool of one desktop in a scene, and a user who may use it.
final class Site {
  let daemon: Subject
  private let directory: URL
  private let settings: Settings
  private let port: Int
  private static let user = "bench"

  init(_ settings: Settings, scene: String) throws {
    self.settings = settings
    directory = FileManager.default.temporaryDirectory.appendingPathComponent(
      "carrel-bench-\(UUID().uuidString.prefix(8))")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    port = try freePort()
    let programs = URL(fileURLWithPath: settings.programs).path
    let configuration = """
      state_directory: \(directory.path)/state
      runtime_directory: \(directory.path)/run
      gateway:
        listen: ["127.0.0.1:\(port)"]
        web: []
      programs:
        vmm: \(programs)/carrel-vmm
        display: \(programs)/carrel-display
      desktops:
        stop_at_exit: true
      log:
        level: error
      """
    let file = directory.appendingPathComponent("carrel.yaml")
    try Data(configuration.utf8).write(to: file)
    daemon = try Subject(name: "carreld", ["\(programs)/carreld", "--config", file.path])
    do {
      try awaitControl()
      let image = URL(fileURLWithPath: settings.elf).path
      try carrel(
        "pool", "create", "bench", "--kind", "floating", "--image", image, "--append",
        "scene=\(scene)", "--size", "1", "--spares", "1", "--memory", "256M")
      try carrel("user", "add", Self.user, "--password-stdin", input: UUID().uuidString)
      try carrel("entitle", Self.user, "bench")
    } catch {
      stop()
      throw error
    }
  }

  /// A viewer that logged in by ticket.
  func connect(_ encoding: VNCPeer.Encoding) throws -> VNCPeer {
    struct Ticket: Decodable { let ticket: String }
    let answer = try carrel("ticket", Self.user)
    let ticket = try JSONDecoder().decode(Ticket.self, from: answer)
    return try VNCPeer(
      host: "127.0.0.1", port: port, encoding: encoding, ticket: ticket.ticket)
  }

  /// Processes of carreld's family whose program has this name.
  func processes(named name: String) -> [Int32] {
    Subject.family(of: daemon.process.processIdentifier).filter { pid in
      let command = try? String(contentsOfFile: "/proc/\(pid)/comm", encoding: .utf8)
      return command?.trimmingCharacters(in: .newlines) == name
    }
  }

  /// Lets carreld end its desktops, and removes everything.
  func stop() {
    daemon.process.terminate()
    daemon.process.waitUntilExit()
    try? FileManager.default.removeItem(at: directory)
  }

  private func awaitControl() throws {
    let deadline = Clock.seconds + 30
    while (try? carrel("status")) == nil {
      guard daemon.process.isRunning, Clock.seconds < deadline else {
        throw BenchError("carreld did not start")
      }
    }
  }

  @discardableResult
  private func carrel(_ arguments: String..., input: String = "") throws -> Data {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "\(settings.programs)/carrel")
    process.arguments = arguments + ["--json", "--socket", "\(directory.path)/run/control.sock"]
    let (standardInput, output) = (Pipe(), Pipe())
    process.standardInput = standardInput
    process.standardOutput = output
    process.standardError = arguments == ["status"] ? FileHandle.nullDevice : nil
    try process.run()
    try standardInput.fileHandleForWriting.write(contentsOf: Data((input + "\n").utf8))
    try standardInput.fileHandleForWriting.close()
    let answer = try output.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw BenchError("carrel \(arguments.joined(separator: " ")) failed")
    }
    return answer
  }
}
