/// The other side: a program that drives a machine through its control socket. Pure;
/// whoever owns the socket passes bytes in and out.
///
///     var client = QMPClient()
///     send(client.command("query-status").bytes)   // queued until negotiated
///     for message in client.receive(bytes) { … }
///     send(client.pendingOutput())
package struct QMPClient {
  package enum Message: Equatable, Sendable {
    /// The server greeted, and the negotiation went out.
    case ready
    case result(identifier: Int, Result<JSON, QMPError>)
    case event(name: String, data: JSON?, seconds: Int64, microseconds: Int64)
    /// The peer does not speak QMP; nothing good can follow.
    case protocolViolation(String)
  }

  private enum Phase { case greeting, negotiating, ready, failed }

  /// Replies such as a list of commands are longer than requests.
  private var splitter = JSONSplitter(limit: 1 << 20)
  private var phase = Phase.greeting
  private var output: [UInt8] = []
  private var held: [UInt8] = []
  private var nextIdentifier = 1
  private var outstanding: Set<Int> = []

  package init() {}

  package var isReady: Bool { phase == .ready }

  /// Queues a command and returns the identifier that its result will carry.
  @discardableResult
  package mutating func command(_ name: String, _ arguments: JSON? = nil) -> Int {
    let identifier = nextIdentifier
    nextIdentifier += 1
    outstanding.insert(identifier)
    var members: [String: JSON] = [
      "execute": .string(name), "id": .integer(Int64(identifier)),
    ]
    members["arguments"] = arguments
    let bytes = JSON.object(members).encoded + [0x0A]
    if phase == .ready { output += bytes } else { held += bytes }
    return identifier
  }

  /// What is to be written to the socket now; it is taken out of the queue.
  package mutating func pendingOutput() -> [UInt8] {
    defer { output = [] }
    return output
  }

  package mutating func receive(_ bytes: some Sequence<UInt8>) -> [Message] {
    var messages: [Message] = []
    for piece in splitter.receive(bytes) where phase != .failed {
      guard case .object(let object) = piece, let json = try? JSON(parsing: object) else {
        messages.append(violation("bytes that are not a JSON object"))
        continue
      }
      if let message = receive(json) { messages.append(message) }
    }
    return messages
  }

  private mutating func receive(_ json: JSON) -> Message? {
    if let name = json["event"]?.text { return event(name, json) }
    switch phase {
    case .greeting:
      guard json["QMP"] != nil else { return violation("no greeting") }
      phase = .negotiating
      output += JSON.object(["execute": "qmp_capabilities", "id": 0]).encoded + [0x0A]
      return nil
    case .negotiating:
      guard json["return"] != nil else { return violation("the negotiation failed") }
      phase = .ready
      output += held
      held = []
      return .ready
    case .ready: return reply(json)
    case .failed: return nil
    }
  }

  private mutating func reply(_ json: JSON) -> Message? {
    guard let identifier = json["id"]?.whole, outstanding.remove(identifier) != nil else {
      return violation("a reply to no command")
    }
    if let result = json["return"] {
      return .result(identifier: identifier, .success(result))
    }
    let error = json["error"]
    let kind = error?["class"]?.text.flatMap(QMPError.Kind.init(rawValue:)) ?? .generic
    let text = error?["desc"]?.text ?? "the command failed without a reason"
    return .result(identifier: identifier, .failure(QMPError(kind, text)))
  }

  private func event(_ name: String, _ json: JSON) -> Message {
    let stamp = json["timestamp"]
    return .event(
      name: name, data: json["data"], seconds: Int64(stamp?["seconds"]?.whole ?? 0),
      microseconds: Int64(stamp?["microseconds"]?.whole ?? 0))
  }

  private mutating func violation(_ what: String) -> Message {
    phase = .failed
    return .protocolViolation("the control socket sent \(what)")
  }
}
