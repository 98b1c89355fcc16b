import Glibc
import LinuxSystem
import QMP
import Supervisor
import TestSupport
import Testing

@Suite("A question to a guest agent")
struct AgentLinkTests {
  private let directory: TemporaryDirectory
  private let path: String

  init() throws {
    directory = try TemporaryDirectory()
    path = directory.path("agent")
  }

  private func ask(
    _ command: GuestAgentCommand = .ping, presence: Duration = .seconds(20),
    answer: Duration = .seconds(20)
  ) async throws -> JSON {
    let path = path
    return try await offPool {
      try AgentLink(to: path).ask(
        command, within: AgentLink.Limits(presence: presence, answer: answer))
    }
  }

  private func problem(
    _ command: GuestAgentCommand = .ping, presence: Duration = .seconds(20),
    answer: Duration = .seconds(20)
  ) async throws -> AgentLink.Problem {
    let error = await #expect(throws: AgentLink.Problem.self) {
      _ = try await ask(command, presence: presence, answer: answer)
    }
    return try #require(error)
  }

  @Test("is answered, also behind what others left, and when it is too long for one piece")
  func answered() async throws {
    let agent = try FakeAgent(at: path) { peer in
      try peer.say("{\"return\": {}}\n{\"return\": 4}\n")
      try peer.synchronise()
      let sent = try peer.command()?["arguments"]?["input-data"]?.text
      try peer.say("{\"return\": \(sent?.utf8.count ?? 0)}\n")
    }
    let input = [UInt8](repeating: 7, count: 3 << 17)
    let count = try await ask(.execute(.init(path: "cat", arguments: [], input: input)))
    #expect(count == .integer(4 << 17))
    #expect(agent.asked == ["guest-exec"])
  }

  @Test(
    "sets the clock of a guest to what it is when the agent is there", arguments: [true, false])
  func clock(hasHardwareClock: Bool) throws {
    let told = Guarded<[Int64]>([])
    let agent = try FakeAgent(at: path, connections: 3) { peer in
      try peer.synchronise()
      let command = try peer.command()
      let arguments = command?["arguments"]
      if case .integer(let time) = arguments?["time"] {
        told.change { $0.append(time / 1_000_000_000) }
        if !hasHardwareClock {
          try peer.say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"unsupported\"}}\n")
        }
      } else if let time = arguments?["arg"]?.elements?.last?.text {
        told.change { $0.append(Int64(time.dropFirst()) ?? 0) }
      }
      try peer.say("{\"return\": {}}\n")
      _ = try peer.command()
    }
    let before = WallClock.now.seconds
    try GuestClock.set(through: path)
    let asked = ["guest-ping", "guest-set-time"] + (hasHardwareClock ? [] : ["guest-exec"])
    #expect(agent.asked == asked)
    let times = told.withLock { $0 }
    #expect(times.count == asked.count - 1)
    #expect(times.allSatisfy { (before...WallClock.now.seconds).contains($0) })
    try Files.remove(path)
    #expect(throws: AgentLink.Problem.self) { try GuestClock.set(through: path) }
  }

  @Test("has no answer where there is no channel, or nobody behind it")
  func nobody() async throws {
    guard case .noChannel = try await problem() else {
      Issue.record("there is no channel")
      return
    }
    let listener = try UnixListener(at: path, kind: .stream)
    guard case .silent = try await problem(presence: .milliseconds(50)) else {
      Issue.record("nobody is there")
      return
    }
    // As many wait as may: nobody waits to wait.
    var waiting: [UnixSocket] = []
    while let socket = try? UnixSocket.connect(to: path, kind: .stream, blocking: false) {
      waiting.append(socket)
    }
    #expect(waiting.count > 1)
    guard case .silent = try await problem() else {
      Issue.record("nobody is there")
      return
    }
    #expect(listener.path == path)
  }

  @Test("ends with an agent that is there and does not answer, or goes away")
  func slow() async throws {
    let agent = try FakeAgent(at: path, connections: 2) { peer in
      try peer.synchronise()
      // The first waits for the other end to give up, the second does not wait.
      let command = try peer.command()
      if command?["execute"] == "guest-ping" { _ = try peer.command() }
    }
    guard case .slow = try await problem(answer: .milliseconds(50)) else {
      Issue.record("it was there")
      return
    }
    guard case .broken = try await problem(.thaw) else {
      Issue.record("it went away")
      return
    }
    #expect(agent.asked == ["guest-ping", "guest-fsfreeze-thaw"])
  }

  @Test("has worked when it was for a shutdown and the guest went down over it")
  func shutdown() async throws {
    let agent = try FakeAgent(at: path, connections: 2) { peer in
      try peer.synchronise()
      // The first is gone at once, the second hangs.
      let command = try peer.command()
      if command?["arguments"]?["mode"] == "halt" { while try peer.command() != nil {} }
    }
    #expect(try await ask(.shutdown(.powerdown)) == [:])
    #expect(try await ask(.shutdown(.halt), answer: .milliseconds(50)) == [:])
    #expect(agent.asked.filter { $0 == "guest-shutdown" }.count == 2)
  }

  /// What a hostile guest says, before it is known to be there and then.
  static let hostile: [(before: String?, after: String)] = [
    ("x", ""), ("@{\"return\": [", ""), ("@", ""), (nil, "x"), (nil, "{\"return\": \""),
    (nil, "{\"return\": ["), (nil, "{\"a\": {\"a\": "),
  ]

  @Test("ends with a guest that says anything without end", arguments: hostile)
  func flood(before: String?, after: String) async throws {
    let agent = try FakeAgent(at: path) { peer in
      if before == nil { try peer.synchronise() }
      let text = (before ?? after).utf8.map { $0 == UInt8(ascii: "@") ? 0xFF : $0 }
      let bytes = Array(repeatElement(text, count: (64 << 10) / text.count).joined())
      while true { try peer.say(bytes) }
    }
    guard case .protocolViolation(let text) = try await problem() else {
      Issue.record("no agent does that")
      return
    }
    #expect(text.hasPrefix("it sent "))
    #expect(agent.asked.isEmpty)
  }

  @Test("is refused in the agent's words")
  func refused() async throws {
    let agent = try FakeAgent(at: path) { peer in
      try peer.synchronise()
      _ = try peer.command()
      try peer.say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such user\"}}\n")
    }
    let question = GuestAgentCommand.setPassword(user: "nobody", password: [1])
    guard case .refused(let error) = try await problem(question) else {
      Issue.record("it was not refused")
      return
    }
    #expect(error == QMPError(.generic, "no such user"))
    #expect(agent.asked == ["guest-set-user-password"])
  }

  @Test("Debian's agent answers", .needsGuestAgent)
  func real() async throws {
    let agent = try RealAgent()
    let path = agent.path
    let limits = AgentLink.Limits(presence: .seconds(20), answer: .seconds(20))
    func ask(_ command: GuestAgentCommand) async throws -> JSON {
      try await offPool { try AgentLink(to: path).ask(command, within: limits) }
    }
    #expect(try await ask(.ping) == [:])
    let info = try #require(GuestAgentAnswers.info(try await ask(.info)))
    #expect(info.version.first?.isNumber == true)
    #expect(info.commands.contains { $0.name == "guest-exec" && $0.isEnabled })
    #expect(info.commands.contains { $0.name == "guest-shutdown" && !$0.isEnabled })
    let interfaces = try #require(GuestAgentAnswers.interfaces(try await ask(.networkInterfaces)))
    let loopback = interfaces.first { $0.name == "lo" }
    let address = try #require(loopback?.addresses.first { $0.text == "127.0.0.1" })
    #expect(address.prefix == 8)
    #expect(GuestAgentAnswers.isFrozen(try await ask(.freezeStatus)) == false)
    for forbidden in [
      GuestAgentCommand.shutdown(.powerdown), .freeze, .setPassword(user: "x", password: [1]),
    ] {
      let error = await #expect(throws: AgentLink.Problem.self) { _ = try await ask(forbidden) }
      guard case .refused(let refusal)? = error else {
        Issue.record("\(forbidden) is forbidden to this agent")
        continue
      }
      #expect(refusal.context == "Command \(forbidden.name) has been disabled")
    }
  }
}
