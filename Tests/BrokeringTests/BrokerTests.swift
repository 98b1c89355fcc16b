import Brokering
import Testing

@Suite("The broker around the model")
struct BrokerTests {
  private let journal = Journal()
  private let clock = HandClock()
  private let alice = UserName(rawValue: "alice")
  private let here = PeerAddress("10.0.0.9")

  private func broker(
    _ store: MemoryStore, _ launcher: InstantLauncher? = nil,
    settings: Broker.Settings = Broker.Settings()
  ) -> Broker {
    Broker(
      store: store, coding: JSONCoding(), launcher: launcher ?? InstantLauncher(journal: journal),
      authenticator: PlainAuthenticator(), clock: clock, settings: settings)
  }

  /// Runs the broker for as long as `body` does.
  private func running(
    _ broker: Broker, _ body: () async throws -> Void
  ) async throws {
    try await broker.load()
    let task = Task { try await broker.run() }
    try await body()
    await broker.stop()
    try await task.value
  }

  @Test("a decision is in the store before it is acted upon")
  func durableFirst() async throws {
    let broker = broker(MemoryStore(journal: journal))
    try await running(broker) {
      try await broker.perform(.createPool(.sample("office", .floating, 1, 1)))
      await journal.wait(for: "start office-1")
    }
    let stored = try #require(journal.lines.firstIndex(of: "store desktop/office-1"))
    let started = try #require(journal.lines.firstIndex(of: "start office-1"))
    #expect(stored < started)
  }

  @Test("a decision that the store does not take is not made")
  func storeFails() async throws {
    let store = MemoryStore(journal: journal)
    let broker = broker(store)
    try await running(broker) {
      await store.fail(with: .full)
      let error = await #expect(throws: BrokerError.self) {
        try await broker.perform(.createPool(.sample("office", .floating, 1, 1)))
      }
      #expect(error?.kind == .storage)
      #expect(await broker.snapshot.pools.isEmpty)
      #expect(journal.lines.isEmpty)
      await store.fail(with: nil)
      try await broker.perform(.createPool(.sample("office", .floating, 1, 1)))
      await journal.wait(for: "start office-1")
    }
  }

  @Test("an end of a VMM that could not be recorded is recorded later")
  func eventsAreKept() async throws {
    let store = MemoryStore(journal: journal)
    let launcher = InstantLauncher(journal: journal)
    let broker = broker(store, launcher)
    try await running(broker) {
      try await broker.perform(.createPool(.sample("office", .floating, 1, 1)))
      await journal.wait(for: "start office-1")
      while await broker.snapshot.desktops.values.first?.phase != .clean { await Task.yield() }
      await store.fail(with: .full)
      launcher.ended.yield(
        DesktopExit(
          desktop: DesktopID(rawValue: "office-1"), generation: 1, reason: .crashed("signal 9")))
      // Commands come after the event: it has been seen, and not recorded.
      await #expect(throws: BrokerError.self) {
        try await broker.perform(.addUser(alice, verifier: nil))
      }
      await store.fail(with: nil)
      while await broker.snapshot.desktops.values.first?.failures == 0 { await Task.yield() }
    }
  }

  @Test("a viewer whose session cannot be recorded is told so")
  func viewerRefused() async throws {
    let store = MemoryStore(journal: journal)
    let broker = broker(store)
    try await running(broker) {
      try await prepareAlice(broker)
      await store.fail(with: .full)
      let viewer = JournalViewer(id: ConnectionID(1), journal: journal)
      await broker.viewerArrived(viewer, login: Login(user: alice, pool: nil, peer: here))
      await journal.wait(for: "viewer 1 close The server cannot record your session.")
    }
    #expect(!journal.lines.contains { $0.hasPrefix("viewer 1 attach") })
  }

  @Test("another writer of the store ends the broker, which would otherwise decide on old news")
  func conflict() async throws {
    let store = MemoryStore()
    let broker = broker(store)
    try await broker.load()
    let task = Task { try await broker.run() }
    try await prepareAlice(broker)
    await store.fail(with: .conflict)
    await broker.viewerArrived(
      JournalViewer(id: ConnectionID(1), journal: journal),
      login: Login(user: alice, pool: nil, peer: here))
    await #expect(throws: StoreError.self) { try await task.value }
  }

  @Test("a viewer is attached to its desktop and named after it, once the desktop knows its user")
  func attach() async throws {
    let broker = broker(MemoryStore())
    try await running(broker) {
      try await prepareAlice(broker)
      let viewer = JournalViewer(id: await broker.nextConnectionID(), journal: journal)
      await broker.viewerArrived(viewer, login: Login(user: alice, pool: nil, peer: here))
      await journal.wait(for: "viewer 1 attach /run/office-1")
    }
    #expect(journal.lines.contains("viewer 1 name office-1"))
    let identified = try #require(journal.lines.firstIndex(of: "identify office-1 alice"))
    let attached = try #require(journal.lines.firstIndex(of: "viewer 1 attach /run/office-1"))
    #expect(identified < attached)
  }

  @Test("what was stored is there for the next broker")
  func restart() async throws {
    let store = MemoryStore()
    let first = broker(store)
    try await running(first) { try await prepareAlice(first) }
    var launcher = InstantLauncher(journal: journal)
    launcher.survivors = [
      Survivor(desktop: DesktopID(rawValue: "office-1"), generation: 1, state: .running)
    ]
    let second = broker(store, launcher)
    try await running(second) {
      let user = try await second.snapshot.find(alice)
      #expect(user.verifier == "secret")
      let viewer = JournalViewer(id: ConnectionID(7), journal: journal)
      await second.viewerArrived(viewer, login: Login(user: alice, pool: nil, peer: here))
      await journal.wait(for: "viewer 7 attach /run/office-1")
    }
    #expect(journal.lines.filter { $0 == "start office-1" }.count == 1)
  }

  @Test("a password opens, a wrong one and an unknown user do not")
  func passwords() async throws {
    let broker = broker(MemoryStore())
    try await running(broker) {
      try await prepareAlice(broker)
      let right = await broker.authenticate(
        name: "alice/office", password: [UInt8]("secret".utf8), peer: here)
      #expect(
        try right.get()
          == Login(user: alice, pool: PoolName(rawValue: "office"), peer: here))
      let named = await broker.authenticate(
        name: "alice/office-7", password: [UInt8]("secret".utf8), peer: here)
      #expect(
        try named.get()
          == Login(
            user: alice, pool: PoolName(rawValue: "office-7"),
            desktop: DesktopID(rawValue: "office-7"), peer: here))
      for name in ["alice", "nobody"] {
        let wrong = await broker.authenticate(
          name: name, password: [UInt8]("guess".utf8), peer: here)
        #expect(wrong.refusal?.kind == .wrongPassword)
        #expect(wrong.refusal?.message == "The name or the password is wrong.")
      }
      try await broker.perform(.setDisabled(alice, true))
      let disabled = await broker.authenticate(
        name: "alice", password: [UInt8]("secret".utf8), peer: here)
      #expect(disabled.refusal?.kind == .disabled)
    }
  }

  @Test("guessing locks the user out, even for the right password, until time has passed")
  func lockout() async throws {
    var settings = Broker.Settings()
    settings.throttle = .init(failures: 3, windowSeconds: 60, lockoutSeconds: 90)
    let broker = broker(MemoryStore(), settings: settings)
    let right = [UInt8]("secret".utf8)
    try await running(broker) {
      try await prepareAlice(broker)
      for _ in 0..<3 {
        _ = await broker.authenticate(name: "alice", password: [1], peer: here)
      }
      let locked = await broker.authenticate(name: "alice", password: right, peer: here)
      #expect(locked.refusal?.kind == .lockedOut)
      clock.pass(seconds: 91)
      let later = await broker.authenticate(name: "alice", password: right, peer: here)
      #expect(later.refusal == nil)
    }
    let reasons = await broker.snapshot.histories[alice]?.map(\.reason) ?? []
    #expect(reasons.contains(.loginRefusedPassword))
    #expect(reasons.contains(.loginRefusedLockedOut))
  }

  @Test("a ticket opens once, for its user, and is gone from the store first")
  func tickets() async throws {
    let store = MemoryStore(journal: journal)
    let broker = broker(store)
    try await running(broker) {
      try await prepareAlice(broker)
      #expect(await broker.hasLiveTickets() == false)
      let ticket = try await broker.issueTicket(for: alice, seconds: nil)
      #expect(ticket.expires == clock.now.adding(seconds: 120))
      #expect(await broker.hasLiveTickets())
      let response = [UInt8](ticket.secret.utf8)
      let first = await broker.redeemTicket(challenge: [], response: response, peer: here)
      #expect(try first.get().user == alice)
      #expect(journal.lines.contains("forget ticket/t1"))
      let second = await broker.redeemTicket(challenge: [], response: response, peer: here)
      #expect(second.refusal?.kind == .noSuchTicket)
    }
  }

  @Test("an expired ticket opens nothing")
  func expiredTicket() async throws {
    let broker = broker(MemoryStore())
    try await running(broker) {
      try await prepareAlice(broker)
      let ticket = try await broker.issueTicket(for: alice, seconds: 5)
      clock.pass(seconds: 5)
      let late = await broker.redeemTicket(
        challenge: [], response: [UInt8](ticket.secret.utf8), peer: here)
      #expect(late.refusal?.kind == .noSuchTicket)
    }
  }

  @Test("a ticket that cannot be used up opens nothing")
  func ticketNotRecorded() async throws {
    let store = MemoryStore()
    let broker = broker(store)
    try await running(broker) {
      try await prepareAlice(broker)
      let ticket = try await broker.issueTicket(for: alice, seconds: nil)
      await store.fail(with: .full)
      let refused = await broker.redeemTicket(
        challenge: [], response: [UInt8](ticket.secret.utf8), peer: here)
      #expect(refused.refusal?.kind == .unavailable)
    }
  }

  @Test("at its end the broker leaves desktops alone, or ends them where it is told to")
  func end() async throws {
    let kept = broker(MemoryStore())
    try await running(kept) { try await prepareAlice(kept) }
    #expect(!journal.lines.contains { $0.hasPrefix("discard") })
    var settings = Broker.Settings()
    settings.stopDesktopsAtEnd = true
    let demo = broker(MemoryStore(), settings: settings)
    try await running(demo) { try await prepareAlice(demo) }
    #expect(journal.lines.contains("discard office-1"))
  }

  @Test("a broker that ended refuses commands instead of hanging")
  func afterEnd() async throws {
    let broker = broker(MemoryStore())
    try await running(broker) {}
    let error = await #expect(throws: BrokerError.self) {
      try await broker.perform(.addUser(alice, verifier: nil))
    }
    #expect(error?.kind == .host)
  }

  /// A pool with a clean desktop, and Alice with a password.
  private func prepareAlice(_ broker: Broker) async throws {
    try await broker.perform(.createPool(.sample("office", .floating, 1, 1)))
    try await broker.addUser(alice, password: [UInt8]("secret".utf8))
    try await broker.perform(.entitle(alice, PoolName(rawValue: "office")))
    while await broker.snapshot.desktops.values.first?.phase != .clean { await Task.yield() }
  }
}

extension Result where Failure == LoginRefusal {
  fileprivate var refusal: LoginRefusal? {
    if case .failure(let refusal) = self { refusal } else { nil }
  }
}
