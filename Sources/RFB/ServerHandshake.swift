/// The server's side of an RFB connection from the first byte to ClientInit, as a
/// pure state machine: events in, actions out, bounded memory, no clock, no socket.
///
/// The shell performs the actions in their order. Once `.close` or `.relay` was
/// returned every later event yields nothing.
public struct ServerHandshake: Sendable {
  public enum Event: Hashable, Sendable {
    /// The connection is there; the first event, once.
    case connected
    /// Bytes from the viewer, outside or inside TLS as the phase has it.
    case received([UInt8])
    /// TLS that `.startTLS` asked for stands.
    case tlsEstablished
    /// The answer to `.verify`.
    case verdict(Verdict)
    /// The shell's deadline for the present phase has passed.
    case timedOut
  }

  public enum Action: Hashable, Sendable {
    case send([UInt8])
    /// Everything after what was sent so far is TLS, this side being the server.
    case startTLS
    /// Find out who this is and answer with `.verdict`, as late as need be.
    case verify(Credentials)
    /// The viewer is in. What follows (ClientInit first) is for the display, the
    /// given bytes before all others.
    case relay([UInt8])
    /// Close after everything was sent. The reason is for the log.
    case close(HandshakeError)
  }

  public enum Credentials: Hashable, Sendable {
    case password(user: String, password: [UInt8])
    case ticket(challenge: [UInt8], response: [UInt8])
    /// Security type None: the site lets anyone in as the user it names.
    case nobody
  }

  public enum Verdict: Hashable, Sendable {
    case accepted
    /// The reason is shown to the person in front of the viewer.
    case refused(reason: String)
  }

  /// What the shell's deadline is about.
  public enum Phase: Hashable, Sendable {
    /// Programs talk: seconds.
    case negotiating
    /// A person is being asked for a password: a minute or two.
    case awaitingPerson
    /// The authenticator is at work; no deadline of the viewer's.
    case verifying
    /// Relaying or closed.
    case finished
  }

  /// Longest user name and password taken, in bytes.
  public static let userLimit = 256
  public static let passwordLimit = 1024
  /// Most bytes ever kept. A viewer may send ahead no more than this.
  public static let memoryLimit = 2048

  enum State: Hashable, Sendable {
    case idle, version, securityType
    case veNCryptVersion, veNCryptSubtype, tls(VeNCryptSubtype)
    case plain
    case response(challenge: [UInt8])
    case verifying(sendsResult: Bool)
    case finished
  }

  public let offer: SecurityOffer
  /// The version agreed on; `nil` until the viewer named one.
  public private(set) var version: ProtocolVersion?
  /// The security type and subtype that the viewer chose, for the log.
  public private(set) var securityType: SecurityType?
  public private(set) var subtype: VeNCryptSubtype?

  private let cryptography: any Cryptography
  private(set) var state = State.idle
  private var buffer = HandshakeBuffer(limit: memoryLimit)

  public init(offer: SecurityOffer, cryptography: any Cryptography) {
    self.offer = offer
    self.cryptography = cryptography
  }

  public var phase: Phase {
    switch state {
    case .idle, .version, .securityType, .veNCryptVersion, .veNCryptSubtype, .tls: .negotiating
    // Once the first byte of the answer is there, the rest is a program's work.
    case .plain, .response: buffer.count == 0 ? .awaitingPerson : .negotiating
    case .verifying: .verifying
    case .finished: .finished
    }
  }

  /// Bytes kept at this moment; never above `memoryLimit`.
  package var bufferedByteCount: Int { buffer.count }

  public mutating func handle(_ event: Event) -> [Action] {
    if state == .finished { return [] }
    switch event {
    case .connected: return connect()
    case .received(let bytes): return receive(bytes)
    case .tlsEstablished: return establishTLS()
    case .verdict(let verdict): return conclude(verdict)
    case .timedOut:
      return fail(.init(.timedOut, "the handshake took too long; connect again"))
    }
  }
}

// MARK: - Events

extension ServerHandshake {
  private mutating func connect() -> [Action] {
    guard state == .idle else { return [] }
    state = .version
    return [.send(ProtocolVersion.v38.message)]
  }

  private mutating func receive(_ bytes: [UInt8]) -> [Action] {
    guard buffer.append(bytes) else {
      return fail(.init(.oversized, "more than \(Self.memoryLimit) bytes before the login"))
    }
    var actions: [Action] = []
    while let step = advance() { actions += step }
    return actions
  }

  private mutating func establishTLS() -> [Action] {
    guard case .tls(let subtype) = state else { return [] }
    return subtype == .x509Vnc ? challenge() : expectPlain()
  }

  private mutating func conclude(_ verdict: Verdict) -> [Action] {
    guard case .verifying(let sendsResult) = state else { return [] }
    switch verdict {
    case .accepted:
      state = .finished
      let result: [Action] = sendsResult ? [.send(SecurityResult.ok.bytes)] : []
      return result + [.relay(buffer.takeAll())]
    case .refused(let reason):
      return fail(.init(.refused, reason))
    }
  }

  /// Understands one message; `nil` when there is not enough of it yet.
  private mutating func advance() -> [Action]? {
    switch state {
    case .idle, .tls, .verifying, .finished: nil
    case .version: takeVersion()
    case .securityType: takeSecurityType()
    case .veNCryptVersion: takeVeNCryptVersion()
    case .veNCryptSubtype: takeVeNCryptSubtype()
    case .plain: takePlain()
    case .response(let challenge): takeResponse(to: challenge)
    }
  }
}

// MARK: - Messages

extension ServerHandshake {
  private mutating func takeVersion() -> [Action]? {
    guard let message = buffer.take(ProtocolVersion.messageLength) else { return nil }
    guard let version = ProtocolVersion(message: message) else {
      return fail(.init(.garbage, "the viewer does not speak RFB"))
    }
    self.version = version
    guard !offer.types.isEmpty else {
      return fail(.init(.nothingInCommon, "sessions in clear are not allowed here; use TLS"))
    }
    guard version == .v33 else {
      state = .securityType
      return [.send([UInt8(clamping: offer.types.count)] + offer.types.map(\.rawValue))]
    }
    // In 3.3 the server decides, and can only pick what 3.3 knows.
    if offer.types.contains(.vncAuthentication) {
      securityType = .vncAuthentication
      let type = UInt32(SecurityType.vncAuthentication.rawValue).bigEndianBytes
      return [.send(type)] + challenge()
    }
    if offer.types.contains(.none) {
      securityType = SecurityType.none
      state = .verifying(sendsResult: false)
      return [
        .send(UInt32(SecurityType.none.rawValue).bigEndianBytes), .verify(.nobody),
      ]
    }
    return fail(
      .init(.nothingInCommon, "RFB 3.3 cannot encrypt; use a viewer with VeNCrypt X509Plain"))
  }

  private mutating func takeSecurityType() -> [Action]? {
    guard let byte = buffer.takeUInt8() else { return nil }
    let type = SecurityType(rawValue: byte)
    guard offer.types.contains(type) else {
      return fail(.init(.nothingInCommon, "security type \(byte) was not offered"))
    }
    securityType = type
    switch type {
    case .veNCrypt:
      state = .veNCryptVersion
      return [.send([0, 2])]
    case .vncAuthentication:
      return challenge()
    default:
      // Type None: RFB 3.8 alone sends a SecurityResult for it.
      state = .verifying(sendsResult: version == .v38)
      return [.verify(.nobody)]
    }
  }

  private mutating func takeVeNCryptVersion() -> [Action]? {
    guard let version = buffer.take(2) else { return nil }
    guard version == [0, 2] else {
      let error = HandshakeError(
        .nothingInCommon, "VeNCrypt \(version[0]).\(version[1]) is not supported, 0.2 is")
      return finish([.send([0xFF])], error)
    }
    state = .veNCryptSubtype
    let subtypes = offer.subtypes.flatMap(\.rawValue.bigEndianBytes)
    return [.send([0, UInt8(clamping: offer.subtypes.count)] + subtypes)]
  }

  private mutating func takeVeNCryptSubtype() -> [Action]? {
    guard let number = buffer.takeUInt32() else { return nil }
    let subtype = VeNCryptSubtype(rawValue: number)
    guard offer.subtypes.contains(subtype) else {
      let error = HandshakeError(
        .nothingInCommon, "VeNCrypt subtype \(number) was not offered")
      return finish([.send([0])], error)
    }
    self.subtype = subtype
    guard subtype.startsTLS else { return expectPlain() }
    // Bytes sent ahead of TLS would be taken for encrypted ones: someone in the
    // middle could put words into the viewer's mouth.
    guard buffer.count == 0 else {
      return finish([.send([0])], .init(.garbage, "bytes in clear were sent ahead of TLS"))
    }
    state = .tls(subtype)
    return [.send([1]), .startTLS]
  }

  private mutating func expectPlain() -> [Action] {
    state = .plain
    return []
  }

  private mutating func challenge() -> [Action] {
    let challenge = cryptography.randomBytes(VNCAuthentication.challengeLength)
    state = .response(challenge: challenge)
    return [.send(challenge)]
  }

  private mutating func takePlain() -> [Action]? {
    guard let user = buffer.peekUInt32(at: 0), let password = buffer.peekUInt32(at: 4)
    else { return nil }
    guard user <= Self.userLimit, password <= Self.passwordLimit else {
      return fail(
        .init(
          .oversized,
          "a user name of \(user) or a password of \(password) bytes is too long; "
            + "\(Self.userLimit) and \(Self.passwordLimit) are allowed"))
    }
    guard let message = buffer.take(8 + Int(user) + Int(password)) else { return nil }
    state = .verifying(sendsResult: true)
    let split = 8 + Int(user)
    return [
      .verify(
        .password(
          user: String(decoding: message[8..<split], as: UTF8.self),
          password: Array(message[split...])))
    ]
  }

  private mutating func takeResponse(to challenge: [UInt8]) -> [Action]? {
    guard let response = buffer.take(VNCAuthentication.challengeLength) else { return nil }
    state = .verifying(sendsResult: true)
    return [.verify(.ticket(challenge: challenge, response: response))]
  }
}

// MARK: - Endings

extension ServerHandshake {
  /// Ends the handshake and tells the viewer why, where the version and the moment
  /// have a message for it.
  private mutating func fail(_ error: HandshakeError) -> [Action] {
    finish(refusal(error.context).map { [.send($0)] } ?? [], error)
  }

  private mutating func finish(_ actions: [Action], _ error: HandshakeError) -> [Action] {
    state = .finished
    _ = buffer.takeAll()
    return actions + [.close(error)]
  }

  private func refusal(_ reason: String) -> [UInt8]? {
    switch (state, version) {
    case (.version, .v33?):
      UInt32(0).bigEndianBytes + reasonBytes(reason)
    case (.version, .some):
      [0] + reasonBytes(reason)
    case (.securityType, .some(let version)), (.plain, .some(let version)),
      (.response, .some(let version)), (.verifying(sendsResult: true), .some(let version)):
      // Before 3.8 a failure carries no reason.
      SecurityResult.failed.bytes + (version == .v38 ? reasonBytes(reason) : [])
    default:
      nil
    }
  }
}

/// The number in a SecurityResult message (RFC 6143 section 7.1.3).
enum SecurityResult: UInt32 {
  case ok = 0
  case failed = 1

  var bytes: [UInt8] { rawValue.bigEndianBytes }
}
