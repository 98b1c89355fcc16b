/// Lets a hostile guest answer. Shared by the fuzz target and the tests.
package enum GuestAgentFuzzing {
  private static let commands: [GuestAgentCommand] = [
    .info, .networkInterfaces, .freezeStatus, .freeze, .ping,
    .execute(.init(path: "true", arguments: [])), .executionStatus(process: 7),
    .shutdown(.powerdown),
  ]
  private static let token: Int64 = 7
  private static let limit = 4096

  /// The first byte says what is asked, and whether an agent is there already; the second how
  /// the rest is cut into pieces. Returns whether there is at most one last message, the
  /// question goes out once, and pieces come to the same as the whole.
  package static func run(_ bytes: [UInt8]) -> Bool {
    guard bytes.count >= 2 else { return true }
    let command = commands[Int(bytes[0] & 0x7F) % commands.count]
    let greeting: [UInt8] = [0xFF] + Array("{\"return\": \(token)}\n".utf8)
    let input = (bytes[0] & 0x80 == 0 ? [] : greeting) + bytes[2...]
    let whole = converse(command, input, pieces: input.count)
    let pieces = converse(command, input, pieces: Int(bytes[1]))
    let last = whole.filter { $0 != .synchronised }
    for case .answer(.success(let json)) in last { look(at: json) }
    return whole == pieces && last.count <= 1 && whole.count - last.count <= 1
  }

  private static func converse(
    _ command: GuestAgentCommand, _ input: [UInt8], pieces: Int
  ) -> [GuestAgentClient.Message] {
    var client = GuestAgentClient(asking: command, token: token, limit: limit)
    _ = client.pendingOutput()
    var messages: [GuestAgentClient.Message] = []
    var rest = input[...]
    while !rest.isEmpty {
      let piece = rest.prefix(max(1, pieces))
      messages += client.receive(Array(piece))
      _ = client.pendingOutput()
      rest = rest.dropFirst(piece.count)
    }
    return messages
  }

  /// As an answer to every command.
  private static func look(at json: JSON) {
    _ = GuestAgentAnswers.info(json)
    _ = GuestAgentAnswers.interfaces(json)
    _ = GuestAgentAnswers.isFrozen(json)
    _ = GuestAgentAnswers.count(json)
    _ = GuestAgentAnswers.process(json)
    _ = GuestAgentAnswers.execution(json)
  }
}
