import ArgumentParser
import Foundation

/// Passwords come from a terminal or from standard input, never from the command
/// line, where every user of the host could read them.
struct PasswordOptions: ParsableArguments {
  @Flag(help: "Read the password from the first line of standard input.")
  var passwordStdin = false

  func read(for user: String) throws -> String {
    if passwordStdin {
      guard let line = readLine(strippingNewline: true), !line.isEmpty else {
        throw CommandFailure("standard input holds no password: pipe one in", .invalid)
      }
      return line
    }
    guard isatty(STDIN_FILENO) == 1 else {
      throw CommandFailure(
        "there is no terminal to ask for a password: pipe it in with --password-stdin", .usage)
    }
    let first = try ask("Password for \(user): ")
    guard !first.isEmpty else { throw CommandFailure("the password is empty", .invalid) }
    guard try ask("Again: ") == first else {
      throw CommandFailure("the passwords differ: try again", .invalid)
    }
    return first
  }

  private func ask(_ prompt: String) throws -> String {
    try? FileHandle.standardError.write(contentsOf: Data(prompt.utf8))
    var settings = termios()
    // SAFETY: both calls read or fill the structure given.
    guard tcgetattr(STDIN_FILENO, &settings) == 0 else {
      throw CommandFailure("the terminal cannot be silenced: use --password-stdin")
    }
    var silent = settings
    silent.c_lflag &= ~tcflag_t(ECHO)
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent)
    defer {
      tcsetattr(STDIN_FILENO, TCSAFLUSH, &settings)
      try? FileHandle.standardError.write(contentsOf: Data("\n".utf8))
    }
    return readLine(strippingNewline: true) ?? ""
  }
}
