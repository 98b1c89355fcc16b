import ArgumentParser
import ControlAPI
import ControlClient

/// How a command ends, for scripts.
enum ExitStatus: Int32, CaseIterable {
  case success = 0
  case failed = 1
  case notFound = 2
  case conflict = 3
  case invalid = 4
  case storage = 5
  case host = 6
  case unhealthy = 7
  case usage = 64
  case unreachable = 69

  init(_ kind: ControlClientError.Kind) {
    switch kind {
    case .unreachable: self = .unreachable
    case .protocolMismatch: self = .failed
    case .refused(let kind):
      switch kind {
      case .notFound: self = .notFound
      case .exists, .conflict: self = .conflict
      case .invalid: self = .invalid
      case .forbidden: self = .failed
      case .storage: self = .storage
      case .host: self = .host
      }
    }
  }

  var meaning: String {
    switch self {
    case .success: "done"
    case .failed: "failed for another reason"
    case .notFound:
      "there is no such pool, desktop, user, session, image, snapshot, template, backup or job"
    case .conflict:
      "not in its present state: exists already, in use, being made or deleted, done already, or "
        + "a backup or template that does not fit"
    case .invalid: "a name, value, image, archive or key is not acceptable"
    case .storage:
      "there is no room for a disk, image, snapshot, template or backup, or carreld could not "
        + "store the decision (disk full?); nothing was changed"
    case .host:
      "the host could not do it: a desktop that does not start or answer, or waits for memory; an "
        + "image, snapshot, template or backup that was not made"
    case .unhealthy: "'carrel doctor' found something that does not work"
    case .usage: "the command line is wrong"
    case .unreachable: "carreld does not answer"
    }
  }
}

struct ExitCodesCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "exit-codes", abstract: "What the exit codes mean.",
    discussion: ExitStatus.allCases.map { "  \($0.rawValue)\t\($0.meaning)" }
      .joined(separator: "\n"))

  @Flag(help: "Answer in JSON.")
  var json = false

  func run() throws {
    struct Code: Encodable {
      let code: Int32
      let meaning: String
    }
    guard json else { return print(Self.configuration.discussion) }
    let codes = ExitStatus.allCases.map { Code(code: $0.rawValue, meaning: $0.meaning) }
    print(try printedJSON(codes))
  }
}
