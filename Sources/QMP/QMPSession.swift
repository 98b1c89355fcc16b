/// One client of the control socket: bytes in, bytes out. The shell around it owns
/// the socket, and passes events to every session.
package struct QMPSession {
  private var splitter = JSONSplitter()
  private var translator = QMPInputTranslator()
  private var isNegotiated = false

  package init() {}

  /// The first message of the server.
  package func greeting(of machine: any QMPMachine) -> [UInt8] {
    line(["QMP": ["version": QMPCommands.version(of: machine), "capabilities": []]])
  }

  /// Carries out what the client asked for; the reply to each command, in order.
  package mutating func receive(_ bytes: some Sequence<UInt8>, machine: any QMPMachine) -> [UInt8] {
    var replies: [UInt8] = []
    for piece in splitter.receive(bytes) { replies += reply(to: piece, machine) }
    return replies
  }

  /// An event as this client should see it: not before it has negotiated.
  package func event(_ event: QMPEvent, seconds: Int64, microseconds: Int64) -> [UInt8] {
    isNegotiated ? line(event.message(seconds: seconds, microseconds: microseconds)) : []
  }

  private mutating func reply(to piece: JSONSplitter.Piece, _ machine: any QMPMachine) -> [UInt8] {
    switch piece {
    case .garbage: return failure(QMPError(.generic, "JSON parse error, expecting an object"), nil)
    case .tooLong:
      return failure(QMPError(.generic, "JSON parse error, the input is too long"), nil)
    case .object(let bytes):
      do {
        return reply(to: try JSON(parsing: bytes), machine)
      } catch {
        return failure(QMPError(.generic, "\(error)"), nil)
      }
    }
  }

  private mutating func reply(to request: JSON, _ machine: any QMPMachine) -> [UInt8] {
    let identifier = request["id"]
    do {
      var members: [String: JSON] = ["return": try perform(request, machine)]
      members["id"] = identifier
      return line(.object(members))
    } catch {
      return failure(error, identifier)
    }
  }

  private mutating func perform(_ request: JSON, _ machine: any QMPMachine) throws(QMPError)
    -> JSON
  {
    guard let command = request["execute"] else {
      throw QMPError(.generic, "QMP input lacks member 'execute'")
    }
    guard let name = command.text else {
      throw QMPError(.generic, "QMP input member 'execute' must be a string")
    }
    if case .object(let members) = request,
      let extra = members.keys.filter({ !["execute", "arguments", "id"].contains($0) }).min()
    {
      throw QMPError(.generic, "QMP input member '\(extra)' is unexpected")
    }
    var arguments = try QMPArguments(request["arguments"])
    if name == "qmp_capabilities" { return try negotiate(&arguments) }
    guard isNegotiated else {
      throw QMPError(
        .commandNotFound, "Expecting capabilities negotiation with 'qmp_capabilities'")
    }
    return try QMPCommands.perform(name, &arguments, &translator, machine)
  }

  private mutating func negotiate(_ arguments: inout QMPArguments) throws(QMPError) -> JSON {
    guard !isNegotiated else {
      throw QMPError(
        .commandNotFound, "Capabilities negotiation is already complete, command ignored")
    }
    let wanted = try arguments.optionalArray("enable") ?? []
    try arguments.end()
    guard wanted.isEmpty else {
      throw QMPError(.generic, "Capability \(wanted[0].text ?? "of another type") is not available")
    }
    isNegotiated = true
    return [:]
  }

  private func failure(_ error: QMPError, _ identifier: JSON?) -> [UInt8] {
    var members: [String: JSON] = ["error": error.json]
    members["id"] = identifier
    return line(.object(members))
  }

  private func line(_ message: JSON) -> [UInt8] { message.encoded + [0x0D, 0x0A] }
}
