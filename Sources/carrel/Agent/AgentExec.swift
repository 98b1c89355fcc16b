import ArgumentParser
import ControlAPI
import ControlClient
import Foundation

struct AgentExec: Verb {
  static let configuration = CommandConfiguration(
    commandName: "exec", abstract: "Runs a program in the guest, with the agent's rights.",
    discussion: """
      No shell looks at the command: 'exec DESKTOP -- sh -c "…"' asks for one. What it writes is \
      written here when it has ended. The exit code is 0 if the program's is, and 1 otherwise.
      """)

  /// What fits in a request beside the command.
  private static let longestInput = 32 << 10

  @Argument(help: "The desktop.", completion: .custom(Completions.desktops))
  var id: String

  @Option(help: "How long to wait for its end.")
  var seconds = 30

  @Flag(help: "Pass standard input on; 32 KiB at most.")
  var stdin = false

  @Argument(parsing: .postTerminator, help: "The program and its arguments.")
  var command: [String] = []

  @OptionGroup var options: CommonOptions

  func validate() throws {
    if command.isEmpty {
      throw ValidationError("no program is named: put it behind --, as in 'exec \(id) -- id -u'.")
    }
    if !(0...3600).contains(seconds) {
      throw ValidationError("--seconds is \(seconds): choose 0 to 3600.")
    }
  }

  func call(
    _ client: ControlClient, _ terminal: Terminal
  ) async throws -> AgentExecutionDocument {
    let program = AgentProgramDocument(command: command, input: try input(), seconds: seconds)
    terminal.showProgress("running \(command.first ?? "") in \(id)")
    return try await client.send(
      .POST, APIPath("desktops", id, "agent", "exec"), program,
      within: .seconds(seconds + 90))
  }

  private func input() throws -> Data? {
    guard stdin else { return nil }
    let input = try FileHandle.standardInput.read(upToCount: Self.longestInput + 1) ?? Data()
    guard input.count <= Self.longestInput else {
      throw CommandFailure(
        "standard input is longer than \(Self.longestInput >> 10) KiB: bring it into the guest as "
          + "a file", .invalid)
    }
    return input
  }

  func render(_ answer: AgentExecutionDocument, _ terminal: Terminal) -> String {
    answer.show()
    return ""
  }

  func verdict(_ answer: AgentExecutionDocument) -> CommandFailure? {
    answer.verdict(of: command.first ?? "", in: id)
  }
}

extension AgentExecutionDocument {
  /// Byte by byte what it wrote, but nothing that would steer a terminal.
  func show() {
    Self.write(output, to: .standardOutput)
    Self.write(errors, to: .standardError)
  }

  private static func write(_ data: Data, to file: FileHandle) {
    let isSafe = isatty(file.fileDescriptor) == 0
    try? file.write(contentsOf: isSafe ? data : harmless(data))
  }

  private static func harmless(_ data: Data) -> Data {
    var scalars = String.UnicodeScalarView()
    for scalar in String(decoding: data, as: UTF8.self).unicodeScalars {
      let isControl = scalar.properties.generalCategory == .control
      scalars.append(isControl && scalar != "\n" && scalar != "\t" ? "\u{FFFD}" : scalar)
    }
    return Data(String(scalars).utf8)
  }

  func verdict(of program: String, in desktop: String) -> CommandFailure? {
    let remark = truncated ? "; the agent kept only the beginning of what it wrote" : ""
    guard ended else {
      return CommandFailure(
        "\(program) still runs in \(desktop): 'carrel desktop agent exec-status \(desktop) "
          + "\(process)' asks again", .host)
    }
    if let signal { return CommandFailure("\(program) was ended by signal \(signal)\(remark)") }
    guard let status else {
      return CommandFailure("\(program) ended, and the agent does not say how\(remark)")
    }
    guard status == 0, !truncated else {
      return CommandFailure("\(program) ended with status \(status)\(remark)")
    }
    return nil
  }
}
