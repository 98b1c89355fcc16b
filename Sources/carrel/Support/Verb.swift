import ArgumentParser
import ControlAPI
import ControlClient
import Foundation

/// What every command that talks to `carreld` takes.
struct CommonOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The control socket of carreld.", valueName: "path"),
    completion: .file())
  var socket: String?

  @Flag(help: "Answer in JSON.")
  var json = false

  func client() throws(ControlClientError) -> ControlClient {
    ControlClient(socketPath: try ControlSocket.path(named: socket))
  }
}

/// Where carreld's control socket is.
enum ControlSocket {
  /// `--socket`, then CARREL_SOCKET, then where carreld puts it for this user.
  static func path(named option: String?) throws(ControlClientError) -> String {
    if let option { return option }
    let environment = ProcessInfo.processInfo.environment
    if let named = environment["CARREL_SOCKET"], !named.isEmpty { return named }
    guard getuid() != 0 else { return "/run/carrel/control.sock" }
    if let runtime = environment["XDG_RUNTIME_DIR"], !runtime.isEmpty {
      return "\(runtime)/carrel/control.sock"
    }
    let directory = "/tmp/carrel-\(getuid())"
    try checkOwner(of: directory)
    return "\(directory)/control.sock"
  }

  /// Everybody may make directories in /tmp, and what listens there is told passwords.
  private static func checkOwner(of directory: String) throws(ControlClientError) {
    var status = stat()
    // SAFETY: lstat fills the structure given or fails.
    guard lstat(directory, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFDIR, status.st_uid == getuid(),
      status.st_mode & 0o077 == 0
    else {
      throw ControlClientError(
        .unreachable,
        "\(directory) is not a directory of yours alone, so what listens there may not be your "
          + "carreld: have it removed, or name the socket with --socket")
    }
  }
}

/// One verb: validate (ArgumentParser and `validate()`), call, render.
protocol Verb: AsyncParsableCommand {
  associatedtype Answer: Encodable & Sendable

  var options: CommonOptions { get }

  /// Asks `carreld`. May show progress on `terminal`.
  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Answer

  /// The answer for people. Ends without a newline; empty prints nothing.
  func render(_ answer: Answer, _ terminal: Terminal) -> String

  /// What is wrong although there is an answer, which is shown first.
  func verdict(_ answer: Answer) -> CommandFailure?
}

extension Verb {
  func verdict(_ answer: Answer) -> CommandFailure? { nil }

  func run() async throws {
    let terminal = Terminal(quiet: options.json)
    do {
      let answer = try await call(try options.client(), terminal)
      terminal.endProgress()
      let text = options.json ? try printedJSON(answer) : render(answer, terminal)
      if !text.isEmpty { print(text) }
      if let failure = verdict(answer) { throw failure }
    } catch let error as ControlClientError {
      terminal.endProgress()
      throw terminal.fail(error.description, .init(error.kind), json: options.json)
    } catch let failure as CommandFailure {
      terminal.endProgress()
      throw terminal.fail(failure.message, failure.code, json: options.json)
    }
  }
}

/// JSON as `--json` prints it.
func printedJSON(_ answer: some Encodable) throws -> String {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
  return String(decoding: try encoder.encode(answer), as: UTF8.self)
}

/// A command that ends with a message and a code of its own.
struct CommandFailure: Error {
  let message: String
  let code: ExitStatus

  init(_ message: String, _ code: ExitStatus = .failed) {
    self.message = message
    self.code = code
  }
}

/// The answer of commands whose object is gone afterwards.
struct Done: Encodable, Sendable {
  var deleted: String?
  var ended: String?
  var revoked: String?
  var changed: String?
  var file: String?
}
