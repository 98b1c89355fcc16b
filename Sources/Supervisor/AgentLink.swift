import LinuxSystem
import QMP

/// One question to the guest agent of a desktop. The supervisor holds no connection: the
/// VMM serves one at a time, and a restart of `carreld` has nothing to lose.
package struct AgentLink: Sendable {
  /// How long the guest may take.
  package struct Limits: Hashable, Sendable {
    /// Until an agent says that it is there.
    package var presence: Duration
    /// Until it answers the question, then.
    package var answer: Duration

    package init(presence: Duration, answer: Duration) {
      self.presence = presence
      self.answer = answer
    }
  }

  /// Why there is no answer.
  package enum Problem: Error {
    /// The VMM offers no channel.
    case noChannel
    /// Nothing in the guest says that it is an agent.
    case silent
    /// It is there, and did not answer the question in time.
    case slow
    /// The VMM went away, or its channel did.
    case broken(any Error)
    case refused(QMPError)
    case protocolViolation(String)
  }

  /// Longer answers are not taken.
  package static let longestAnswer = 4 << 20

  private let socket: UnixSocket

  /// Does not wait for the VMM.
  package init(to path: String) throws(Problem) {
    do {
      socket = try UnixSocket.connect(to: path, kind: .stream, blocking: false)
    } catch  where error.kind == .notFound {
      throw .noChannel
    } catch  where error.kind == .wouldBlock {
      // As many as may are waiting for an answer already.
      throw .silent
    } catch {
      throw .broken(error)
    }
  }

  /// The one question of this connection. Blocks up to the limits; never called on the task
  /// pool.
  package func ask(_ command: GuestAgentCommand, within limits: Limits) throws(Problem) -> JSON {
    var talk = AgentTalk(command, limits)
    do {
      let poller = try Poller()
      try poller.add(socket.descriptor, token: 0)
      while true {
        let rest = talk.limit.map { Int32(clamping: Int64($0 / 1_000_000) + 1) }
        guard let rest else {
          if try talk.isOver(command) { return [:] }
          throw talk.lateness
        }
        try poller.modify(
          socket.descriptor, talk.isSending ? [.readable, .writable] : .readable, token: 0)
        guard let event = try poller.wait(milliseconds: rest).first else { continue }
        if event.interest.contains(.writable) { try talk.send(to: socket) }
        if !event.interest.isDisjoint(with: [.readable, .hungUp, .failed]),
          let answer = try talk.receive(from: socket)
        {
          return try answer.get()
        }
      }
    } catch let problem as Problem {
      throw problem
    } catch let error as QMPError {
      throw .refused(error)
    } catch {
      if try talk.isOver(command) { return [:] }
      throw .broken(error)
    }
  }
}

/// A question on its way.
private struct AgentTalk {
  private var client: GuestAgentClient
  private var output: [UInt8]
  private let limits: AgentLink.Limits
  private var deadline: UInt64
  private(set) var isAsked = false

  init(_ command: GuestAgentCommand, _ limits: AgentLink.Limits) {
    client = GuestAgentClient(
      asking: command, token: .random(in: 1...Int64(Int32.max)), limit: AgentLink.longestAnswer)
    output = client.pendingOutput()
    self.limits = limits
    deadline = MonotonicClock.now + limits.presence.nanoseconds
  }

  var isSending: Bool { !output.isEmpty }

  var lateness: AgentLink.Problem { isAsked ? .slow : .silent }

  /// A guest that goes down takes its agent along: that this said nothing more is no failure.
  func isOver(_ command: GuestAgentCommand) throws(AgentLink.Problem) -> Bool {
    if let refusal = client.refusal { throw .refused(refusal) }
    return isAsked && !command.isAnswered
  }

  /// Nanoseconds that are left; `nil` for none.
  var limit: UInt64? {
    let now = MonotonicClock.now
    return now < deadline ? deadline - now : nil
  }

  mutating func send(to socket: UnixSocket) throws(SystemError) {
    do {
      output.removeFirst(try socket.send(output, blocking: false))
    } catch  where error.kind == .wouldBlock {
      // There is room again later.
    }
  }

  /// The answer, once it is there.
  mutating func receive(from socket: UnixSocket) throws -> Result<JSON, QMPError>? {
    let received = try socket.receive(blocking: false)
    guard !received.isEnd else {
      throw SystemError(code: 104, "the guest agent's channel")
    }
    for message in client.receive(received.bytes) {
      switch message {
      case .synchronised:
        deadline = MonotonicClock.now + limits.answer.nanoseconds
        isAsked = true
        output += client.pendingOutput()
      case .answer(let answer): return answer
      case .protocolViolation(let text): throw AgentLink.Problem.protocolViolation(text)
      }
    }
    return nil
  }
}

extension Duration {
  fileprivate var nanoseconds: UInt64 {
    UInt64(clamping: components.seconds) * 1_000_000_000
      + UInt64(clamping: components.attoseconds / 1_000_000_000)
  }
}
