import Foundation
import Synchronization
import TestSupport
import Testing

/// The real carreld in a temporary home, with desktops that are only simulated.
final class RunningDaemon: Sendable {
  let home: Home
  private let process: Process
  private let log = Log()

  /// Returns when the control socket listens.
  init(_ home: Home, failpoint: String? = nil, arguments: [String] = []) throws {
    self.home = home
    process = Process()
    process.executableURL = URL(fileURLWithPath: try Home.program("carreld"))
    process.arguments = home.daemonArguments + arguments
    process.environment = ["PATH": "/usr/bin:/bin", "CARREL_FAILPOINT": failpoint ?? ""]
    let pipe = Pipe()
    process.standardError = pipe
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    let file = pipe.fileHandleForReading
    while !log.text.contains("control API listens"), log.read(from: file) {}
    // Whoever stops reading would stop the daemon.
    Thread.detachNewThread { [log] in
      while log.read(from: file) {}
    }
  }

  var output: String { log.text }

  /// Ends it politely; its exit code.
  @discardableResult
  func stop() -> Int32 {
    process.terminate()
    process.waitUntilExit()
    return process.terminationStatus
  }

  func kill() {
    Foundation.kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  func waitUntilDead() { process.waitUntilExit() }

  var processIdentifier: Int32 { process.processIdentifier }

  deinit {
    if process.isRunning { Foundation.kill(process.processIdentifier, SIGKILL) }
  }
}

/// What a daemon wrote.
private final class Log: Sendable {
  private let state = Mutex("")

  var text: String { state.withLock { $0 } }

  /// Takes what there is; false at the end.
  func read(from file: FileHandle) -> Bool {
    let data = file.availableData
    state.withLock { $0 += String(decoding: data, as: UTF8.self) }
    return !data.isEmpty
  }
}

/// Directories of one carreld, and `carrel` to administer it.
final class Home: Sendable {
  let directory: TemporaryDirectory
  let state: String
  var runtime: String { directory.path("run") }
  var socket: String { runtime + "/control.sock" }
  /// Something that looks like a kernel.
  let image: String

  init(state: String? = nil) throws {
    directory = try TemporaryDirectory()
    self.state = state ?? directory.path("state")
    image = try Self.program("carrel")
  }

  var daemonArguments: [String] {
    [
      "--simulate", "--state-directory", state, "--runtime-directory", directory.path("run"),
    ]
  }

  /// A program built with these tests.
  static func program(_ name: String) throws -> String {
    let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    // The test runner is in the build directory, or is Swift's and was told of a bundle there.
    let candidates = [own.path] + CommandLine.arguments
    for candidate in candidates {
      let path = URL(fileURLWithPath: candidate).deletingLastPathComponent()
        .appendingPathComponent(name).path
      if access(path, X_OK) == 0 { return path }
    }
    throw MissingProgram(name: name)
  }

  struct MissingProgram: Error {
    let name: String
  }

  struct Result {
    let code: Int32
    let output: String
    let errors: String

    /// The answer as `--json` printed it.
    func json<Answer: Decodable>(_ type: Answer.Type) throws -> Answer {
      try JSONDecoder().decode(type, from: Data(output.utf8))
    }
  }

  /// Runs carrel and waits for it.
  @discardableResult
  func carrel(_ arguments: String..., input: String = "") throws -> Result {
    try run("carrel", arguments, input: input)
  }

  func run(_ program: String, _ arguments: [String], input: String = "") throws -> Result {
    try run(
      path: try Self.program(program), arguments, environment: ["CARREL_SOCKET": socket],
      input: input)
  }

  /// Any program, with nothing in its environment but what is given and PATH.
  func run(
    path: String, _ arguments: [String], environment: [String: String], input: String = ""
  ) throws -> Result {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    process.currentDirectoryURL = URL(fileURLWithPath: directory.path)
    process.environment = environment.merging(["PATH": "/usr/sbin:/usr/bin:/sbin:/bin"]) { $1 }
    let (stdin, stdout, stderr) = (Pipe(), Pipe(), Pipe())
    process.standardInput = stdin
    process.standardOutput = stdout
    process.standardError = stderr
    try process.run()
    try stdin.fileHandleForWriting.write(contentsOf: Data(input.utf8))
    try stdin.fileHandleForWriting.close()
    let output = try stdout.fileHandleForReading.readToEnd() ?? Data()
    let errors = try stderr.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    return Result(
      code: process.terminationStatus, output: String(decoding: output, as: UTF8.self),
      errors: String(decoding: errors, as: UTF8.self))
  }

  /// The same, and it has to work.
  @discardableResult
  func done(_ arguments: String..., input: String = "") throws -> Result {
    let result = try run("carrel", arguments, input: input)
    try #require(result.code == 0, "carrel \(arguments.joined(separator: " ")): \(result.errors)")
    return result
  }

  /// Desktops that "run" on this host.
  var running: [String] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: runtime + "/simulated")) ?? []
    return names.sorted()
  }
}
