import Brokering
import Synchronization
import Testing

@Suite("The broker and who guesses")
struct GuessingTests {
  private let alice = UserName(rawValue: "alice")
  private let here = PeerAddress("10.0.0.9")
  private let clock = HandClock()
  private let decisions = Decisions()

  /// Keeps what is decided, as a log would.
  private final class Decisions: Sendable {
    private let all = Mutex<[Decision]>([])
    func add(_ decision: Decision) { all.withLock { $0.append(decision) } }
    var list: [Decision] { all.withLock { $0 } }
  }

  private func withBroker(
    failures: Int = 3, _ authenticator: any Authenticator = PlainAuthenticator(),
    _ body: (Broker) async throws -> Void
  ) async throws {
    var settings = Broker.Settings()
    settings.throttle = .init(failures: failures, windowSeconds: 60, lockoutSeconds: 90)
    let broker = Broker(
      store: MemoryStore(), coding: JSONCoding(), launcher: InstantLauncher(journal: Journal()),
      authenticator: authenticator, clock: clock, settings: settings,
      observe: { [decisions] in decisions.add($0) })
    try await broker.load()
    let task = Task { try await broker.run() }
    try await broker.addUser(alice, password: [UInt8]("secret".utf8))
    try await body(broker)
    await broker.stop()
    try await task.value
  }

  @Test("wrong tickets lock the address out, even for the right one, until time has passed")
  func wrongTickets() async throws {
    try await withBroker { broker in
      let ticket = try await broker.issueTicket(for: alice, seconds: 600)
      let right = [UInt8](ticket.secret.utf8)
      // Many people may come from one address.
      for _ in 0..<12 {
        let wrong = await broker.redeemTicket(challenge: [], response: [1], peer: here)
        #expect(wrong.refusal?.kind == .noSuchTicket)
      }
      let locked = await broker.redeemTicket(challenge: [], response: right, peer: here)
      #expect(locked.refusal?.kind == .lockedOut)
      #expect(decisions.list.last?.reason == .loginRefusedLockedOut)
      let elsewhere = PeerAddress("10.0.0.8")
      let missed = await broker.redeemTicket(challenge: [], response: [1], peer: elsewhere)
      #expect(missed.refusal?.kind == .noSuchTicket, "others go on")
      clock.pass(seconds: 91)
      let later = await broker.redeemTicket(challenge: [], response: right, peer: here)
      #expect(try later.get().user == alice)
    }
  }

  @Test("a host that changes its IPv6 address after each guess is locked out as well")
  func manyAddresses() async throws {
    func address(_ number: Int) -> PeerAddress {
      PeerAddress("2001:db8::\(number)", network: "2001:db8:0:0::/64")
    }
    try await withBroker { broker in
      for number in 0..<12 {
        _ = await broker.redeemTicket(challenge: [], response: [1], peer: address(number))
      }
      let locked = await broker.redeemTicket(challenge: [], response: [1], peer: address(99))
      #expect(locked.refusal?.kind == .lockedOut)
    }
  }

  @Test("a typed name that is none is not recorded, so that nobody can forge a line of the log")
  func forgedLines() async throws {
    let counting = CountingAuthenticator()
    try await withBroker(counting) { broker in
      let forged = ["x\nroot", "x\u{1B}[2Jroot", "", "x y", String(repeating: "x", count: 500)]
      for name in forged + ["alice/x\nroot"] {
        let answer = await broker.authenticate(
          name: name, password: [UInt8]("guess".utf8), peer: here)
        #expect(answer.refusal?.kind == .wrongPassword)
        #expect(answer.refusal?.message == "The name or the password is wrong.")
      }
      #expect(counting.checks == 6, "each costs as much as a name that might be right")
      let pool = await broker.authenticate(
        name: "alice/x\nroot", password: [UInt8]("secret".utf8), peer: here)
      #expect(pool.refusal?.message == "There is no such pool.")
    }
    #expect(decisions.list.count { $0.reason == .loginRefusedPassword } == 6)
    for decision in decisions.list {
      let line = decision.text + (decision.user?.rawValue ?? "")
      #expect(!line.contains("root") && !line.contains { $0.isNewline })
    }
  }
}

/// Counts the passwords it checks.
private final class CountingAuthenticator: Authenticator {
  private let count = Mutex(0)
  private let plain = PlainAuthenticator()

  var checks: Int { count.withLock { $0 } }

  func makeVerifier(of password: [UInt8]) async throws -> String {
    try await plain.makeVerifier(of: password)
  }

  func verify(_ password: [UInt8], against verifier: String?) async -> Bool {
    count.withLock { $0 += 1 }
    return await plain.verify(password, against: verifier)
  }

  func makeTicketSecret() throws -> String { try plain.makeTicketSecret() }

  func ticket(_ secret: String, answers challenge: [UInt8], with response: [UInt8]) -> Bool {
    plain.ticket(secret, answers: challenge, with: response)
  }
}

extension Result where Failure == LoginRefusal {
  fileprivate var refusal: LoginRefusal? {
    if case .failure(let refusal) = self { refusal } else { nil }
  }
}
