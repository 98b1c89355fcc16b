import ArgumentParser
import ControlAPI
import ControlClient
import Foundation

/// Which directory of backups, and what opens it.
struct RepositoryOptions: ParsableArguments {
  @Option(
    name: [.customLong("to"), .customLong("from")],
    help: ArgumentHelp("The directory of backups, on carreld's host.", valueName: "directory"),
    completion: .directory)
  var to: String

  @Option(
    help: ArgumentHelp(
      "A file whose first line is the key of the backups, which are worth nothing without it.",
      valueName: "file"), completion: .file())
  var keyFile: String?

  @Flag(help: "Read the key from the first line of standard input.")
  var keyStdin = false

  func validate() throws {
    guard keyFile == nil || !keyStdin else {
      throw ValidationError("give either --key-file or --key-stdin.")
    }
  }

  /// A request with both.
  func request() throws -> BackupRequest {
    var request = BackupRequest()
    request.repository = absolute(to)
    if keyStdin {
      guard let line = readLine(strippingNewline: true), !line.isEmpty else {
        throw CommandFailure("standard input holds no key: pipe one in", .invalid)
      }
      request.key = line
    } else if let keyFile {
      guard let bytes = FileManager.default.contents(atPath: keyFile) else {
        let reason =
          access(keyFile, R_OK) == 0 ? "it is no file" : String(cString: strerror(errno))
        throw CommandFailure(
          "the key file \(keyFile) cannot be read (\(reason)): name one that you may read, or pipe "
            + "the key in with --key-stdin", .invalid)
      }
      guard let text = String(data: bytes, encoding: .utf8) else {
        throw CommandFailure(
          "\(keyFile) holds no key: it is not text; its first line is the key", .invalid)
      }
      guard let line = text.split(whereSeparator: \.isNewline).first else {
        throw CommandFailure("\(keyFile) holds no key: its first line is the key", .invalid)
      }
      request.key = String(line)
    }
    return request
  }
}

/// What becomes of a backup.
struct RestoreOptions: ParsableArguments {
  @Option(
    name: .customLong("as"),
    help: "The name of the desktop, such as office-7; its own, if that is free, if left out.")
  var name: String?

  @Option(help: "The pool it goes to; its own if left out.", completion: .custom(Completions.pools))
  var pool: String?

  @Option(help: "Whose it is; its owner's if left out.", completion: .custom(Completions.users))
  var owner: String?

  func fill(_ request: inout BackupRequest) {
    (request.desktop, request.pool, request.owner) = (name, pool, owner)
  }
}

/// What commands share that take long.
struct BackupJobOptions: ParsableArguments {
  @Flag(help: "Do not wait until it is done.")
  var noWait = false

  func begin(
    _ verb: String, _ request: BackupRequest, _ client: ControlClient, _ terminal: Terminal
  ) async throws -> BackupJobDocument {
    let begun: BackupJobDocument = try await client.send(
      .POST, APIPath("backups", verb), request)
    guard !noWait else { return begun }
    return try await Waiting.until(
      seconds: 7 * 86_400,
      ask: { () async throws -> BackupJobDocument in
        try await client.get(APIPath("backups", "jobs", begun.id))
      },
      problem: { _ in nil },
      progress: {
        terminal.showProgress(
          $0.step ?? "waiting", done: $0.percent, of: $0.percent.map { _ in 100 })
      },
      isDone: { $0.state != "working" })
  }

  func verdict(_ answer: BackupJobDocument) -> CommandFailure? {
    answer.problem.map { problem in
      CommandFailure(problem, answer.problemKind.map { ExitStatus(.refused($0)) } ?? .host)
    }
  }

  func render(_ answer: BackupJobDocument, _ terminal: Terminal) -> String {
    guard answer.state != "working" else {
      return "Job \(answer.id) is under way: see 'carrel backup jobs'"
    }
    var table = Table("DESKTOP", "BACKUP", "WRITTEN", "WHAT BECAME OF IT")
    for result in answer.results {
      table.add(
        .init(result.desktop), .init(result.backup.orDash),
        .init(result.addedBytes.map(byteText) ?? "-"),
        .init(result.problem ?? "ready", result.problem == nil ? .green : .red))
    }
    let rows = answer.results.isEmpty ? [] : [table.render(terminal, empty: "")]
    return (rows + answer.notes.map { $0 + "." }).joined(separator: "\n")
  }
}
