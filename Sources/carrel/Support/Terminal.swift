import ArgumentParser
import Foundation
import Synchronization

/// Where people read: colours and progress only if they can.
final class Terminal: Sendable {
  enum Colour: Int { case red = 31, green = 32, yellow = 33, blue = 34, grey = 90 }

  let colours: Bool
  private let progress: Bool
  private let drawn = Mutex(false)

  init(quiet: Bool) {
    let environment = ProcessInfo.processInfo.environment
    let plain = environment["NO_COLOR"].map { !$0.isEmpty } ?? false
    let dumb = environment["TERM"] == "dumb"
    colours = isatty(STDOUT_FILENO) == 1 && !plain && !dumb
    progress = !quiet && isatty(STDERR_FILENO) == 1 && !dumb
  }

  func paint(_ text: String, _ colour: Colour?) -> String {
    guard colours, let colour else { return text }
    return "\u{1B}[\(colour.rawValue)m\(text)\u{1B}[0m"
  }

  func bold(_ text: String) -> String {
    colours ? "\u{1B}[1m\(text)\u{1B}[0m" : text
  }

  // MARK: Progress, on standard error

  /// Draws over the last progress line: a bar for a known share, else the text.
  func showProgress(_ text: String, done: Int? = nil, of total: Int? = nil) {
    guard progress else { return }
    var bar = ""
    if let done, let total, total > 0 {
      let filled = max(0, min(30, done * 30 / total))
      bar =
        "[" + String(repeating: "#", count: filled)
        + String(repeating: "-", count: 30 - filled) + "] "
    }
    write("\r\u{1B}[K\(bar)\(text)")
    drawn.withLock { $0 = true }
  }

  func endProgress() {
    let clear = drawn.withLock { drawn in
      defer { drawn = false }
      return drawn
    }
    if clear { write("\r\u{1B}[K") }
  }

  // MARK: Errors

  /// Says what failed and gives the error to throw.
  func fail(_ message: String, _ code: ExitStatus, json: Bool) -> ExitCode {
    struct Failure: Encodable {
      let error: String
      let code: Int32
    }
    let failure = Failure(error: message, code: code.rawValue)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    if json, let data = try? encoder.encode(failure) {
      write(String(decoding: data, as: UTF8.self) + "\n")
    } else {
      write("carrel: \(message)\n")
    }
    return ExitCode(code.rawValue)
  }

  private func write(_ text: String) {
    try? FileHandle.standardError.write(contentsOf: Data(text.utf8))
  }
}
