/// The client's side of an RFB connection, as the gateway speaks it to a display
/// process: RFB 3.8 and security type None, up to where ClientInit goes out.
public struct ClientHandshake: Sendable {
  public enum Action: Hashable, Sendable {
    case send([UInt8])
    /// ClientInit is next; the bytes are what the server sent ahead (none, if it
    /// keeps to the protocol).
    case relay([UInt8])
    case close(HandshakeError)
  }

  /// Most bytes ever kept.
  public static let memoryLimit = 2048

  private enum State {
    case version, typeCount, types(Int), result, reasonLength, reason(Int), done
  }

  private var state = State.version
  private var buffer = HandshakeBuffer(limit: memoryLimit)

  public init() {}

  public var isFinished: Bool {
    if case .done = state { true } else { false }
  }

  /// Takes bytes from the server. After `.relay` or `.close` it yields nothing.
  public mutating func receive(_ bytes: [UInt8]) -> [Action] {
    if isFinished { return [] }
    guard buffer.append(bytes) else {
      return fail(.oversized, "the display sent more than \(Self.memoryLimit) bytes ahead")
    }
    var actions: [Action] = []
    while let step = advance() { actions += step }
    return actions
  }

  private mutating func advance() -> [Action]? {
    switch state {
    case .version: takeVersion()
    case .typeCount: takeTypeCount()
    case .types(let count): takeTypes(count)
    case .result: takeResult()
    case .reasonLength: takeReasonLength()
    case .reason(let count): takeReason(count)
    case .done: nil
    }
  }

  private mutating func takeVersion() -> [Action]? {
    guard let message = buffer.take(ProtocolVersion.messageLength) else { return nil }
    guard ProtocolVersion(message: message) == .v38 else {
      return fail(.garbage, "the display does not speak RFB 3.8")
    }
    state = .typeCount
    return [.send(ProtocolVersion.v38.message)]
  }

  private mutating func takeTypeCount() -> [Action]? {
    guard let count = buffer.takeUInt8() else { return nil }
    state = count == 0 ? .reasonLength : .types(Int(count))
    return []
  }

  private mutating func takeTypes(_ count: Int) -> [Action]? {
    guard let types = buffer.take(count) else { return nil }
    guard types.contains(SecurityType.none.rawValue) else {
      return fail(.nothingInCommon, "the display does not offer security type None")
    }
    state = .result
    return [.send([SecurityType.none.rawValue])]
  }

  private mutating func takeResult() -> [Action]? {
    guard let result = buffer.takeUInt32() else { return nil }
    guard result == SecurityResult.ok.rawValue else {
      state = .reasonLength
      return []
    }
    state = .done
    return [.relay(buffer.takeAll())]
  }

  private mutating func takeReasonLength() -> [Action]? {
    guard let length = buffer.takeUInt32() else { return nil }
    guard length <= 1024 else { return fail(.oversized, "the display refused at length") }
    state = .reason(Int(length))
    return []
  }

  private mutating func takeReason(_ count: Int) -> [Action]? {
    guard let text = buffer.take(count) else { return nil }
    return fail(.refused, "the display refused: " + String(decoding: text, as: UTF8.self))
  }

  private mutating func fail(_ kind: HandshakeError.Kind, _ context: String) -> [Action] {
    state = .done
    _ = buffer.takeAll()
    return [.close(HandshakeError(kind, context))]
  }
}
