/// One question to QEMU's guest agent, which speaks QMP's grammar, without a greeting, over
/// what is a serial line to it. Pure; whoever owns the channel passes bytes in and out.
///
/// The agent knows no connections, and answers in order. What it has read or said for
/// somebody who has gone is passed over with `guest-sync-delimited`: a byte 0xFF resets its
/// parser, and its answer, behind another 0xFF, repeats a token that nobody else has sent.
/// Answers that come before that one are other people's.
package struct GuestAgentClient {
  package enum Message: Equatable, Sendable {
    /// An agent is there; the question went out.
    case synchronised
    /// The last message.
    case answer(Result<JSON, QMPError>)
    /// The last message: what is there is no guest agent, or a hostile one.
    case protocolViolation(String)
  }

  private enum Phase { case seeking, synchronising, asking, finished }

  private static let delimiter: UInt8 = 0xFF
  /// Answers to others that may be waiting in the guest.
  private static let mostSkipped = 1 << 20

  private let command: GuestAgentCommand
  private let token: Int64
  private let limit: Int
  private var splitter: JSONSplitter
  private var phase = Phase.seeking
  private var skipped = 0
  private var output: [UInt8]
  /// Why a command that has no answer when it works was refused. What was asked behind it is
  /// answered before it is delivered: an agent on a socket ends when its words are not read.
  package private(set) var refusal: QMPError?

  /// - Parameters:
  ///   - token: not used before on this channel.
  ///   - limit: of an answer's length.
  package init(asking command: GuestAgentCommand, token: Int64, limit: Int) {
    self.command = command
    self.token = token
    self.limit = limit
    splitter = JSONSplitter(limit: limit)
    let sync: JSON = ["execute": "guest-sync-delimited", "arguments": ["id": .integer(token)]]
    output = [Self.delimiter] + sync.encoded + [0x0A]
  }

  /// What is to be written to the channel now; it is taken out of the queue.
  package mutating func pendingOutput() -> [UInt8] {
    defer { output = [] }
    return output
  }

  package mutating func receive(_ bytes: [UInt8]) -> [Message] {
    var messages: [Message] = []
    var rest = bytes[...]
    while phase == .seeking || phase == .synchronising, !rest.isEmpty {
      let part = rest.prefix { $0 != Self.delimiter }
      rest = rest.dropFirst(part.count)
      if phase == .synchronising { messages += receive(splitter.receive(part)) }
      guard phase == .seeking || phase == .synchronising else { break }
      skipped += part.count + 1
      if skipped > Self.mostSkipped {
        messages.append(violation("more than \(Self.mostSkipped >> 10) KiB for nobody"))
      } else if !rest.isEmpty {
        rest = rest.dropFirst()
        splitter = JSONSplitter(limit: limit)
        phase = .synchronising
      }
    }
    if phase == .asking { messages += receive(splitter.receive(rest)) }
    return messages
  }

  private mutating func receive(_ pieces: [JSONSplitter.Piece]) -> [Message] {
    var messages: [Message] = []
    for piece in pieces {
      switch phase {
      case .synchronising: if let message = synchronise(piece) { messages.append(message) }
      case .asking: if let message = answer(piece) { messages.append(message) }
      case .seeking, .finished: break
      }
    }
    return messages
  }

  private mutating func synchronise(_ piece: JSONSplitter.Piece) -> Message? {
    guard case .object(let object) = piece, let json = try? JSON(parsing: object),
      json["return"] == .integer(token)
    else {
      // The answer to somebody else's.
      phase = .seeking
      return nil
    }
    phase = .asking
    output += command.line
    return .synchronised
  }

  private mutating func answer(_ piece: JSONSplitter.Piece) -> Message? {
    guard case .object(let object) = piece else {
      return violation(
        piece == .tooLong ? "more than \(limit >> 10) KiB in one answer" : "bytes that are no JSON")
    }
    let json: JSON
    do {
      json = try JSON(parsing: object)
    } catch {
      return violation("an answer that is no JSON: \(error)")
    }
    if let refusal {
      phase = .finished
      return .answer(.failure(refusal))
    }
    if let result = json["return"] {
      phase = .finished
      return .answer(.success(result))
    }
    guard let problem = json["error"] else { return violation("neither a result nor an error") }
    let kind = problem["class"]?.text.flatMap(QMPError.Kind.init(rawValue:)) ?? .generic
    let text = problem["desc"]?.text.map { GuestText.clean($0) } ?? "no reason was given"
    let error = QMPError(kind, text)
    guard command.isAnswered else {
      refusal = error
      return nil
    }
    phase = .finished
    return .answer(.failure(error))
  }

  private mutating func violation(_ what: String) -> Message {
    phase = .finished
    return .protocolViolation("it sent \(what)")
  }
}

/// What a guest says, for people to read on a terminal.
package enum GuestText {
  private static let longest = 512

  /// Without what would steer a terminal or a log, and no longer than a few lines.
  package static func clean(_ text: String) -> String {
    var scalars = String.UnicodeScalarView()
    for scalar in text.unicodeScalars.prefix(longest) {
      scalars.append(isPlain(scalar) ? scalar : "\u{FFFD}")
    }
    return String(scalars)
  }

  /// Neither a control character nor one that changes the order of others.
  private static func isPlain(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned: false
    default: true
    }
  }
}
