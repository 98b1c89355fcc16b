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

  /// `--socket`, then CARREL_SOCKET, then the usual place.
  var socketPath: String {
    if let socket { return socket }
    let environment = ProcessInfo.processInfo.environment
    if let named = environment["CARREL_SOCKET"], !named.isEmpty { return named }
    if getuid() != 0, let runtime = environment["XDG_RUNTIME_DIR"], !runtime.isEmpty {
      return "\(runtime)/carrel/control.sock"
    }
    return "/run/carrel/control.sock"
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
}

extension Verb {
  func run() async throws {
    let terminal = Terminal(quiet: options.json)
    do {
      let answer = try await call(ControlClient(socketPath: options.socketPath), terminal)
      terminal.endProgress()
      let text = options.json ? try printedJSON(answer) : render(answer, terminal)
      if !text.isEmpty { print(text) }
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
