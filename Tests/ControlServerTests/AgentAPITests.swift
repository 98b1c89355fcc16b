import Brokering
import ControlAPI
import ControlClient
import Foundation
import Testing

@Suite("Guest agents over the control API")
struct AgentAPITests {
  private let site: InProcess
  private let home: Home

  init() throws {
    site = try InProcess()
    home = try Home()
  }

  /// A pool with a desktop that Alice is on.
  private func serving(
    _ body: (ControlClient, TestViewer) async throws -> Void
  ) async throws {
    try await site.serving { client in
      var creation = PoolCreation(
        name: "office", kind: "floating", image: ImageDocument(path: try Home.program("carrel")))
      creation.size = 1
      let _: PoolDocument = try await client.send(.POST, APIPath("pools"), creation)
      let _: UserDocument = try await client.send(
        .POST, APIPath("users"), UserCreation(name: "alice", password: nil))
      let _: UserDocument = try await client.put(APIPath("users", "alice", "pools", "office"))
      while await site.broker.snapshot.desktops.values.first?.phase != .clean { await Task.yield() }
      let viewer = TestViewer(await site.broker.nextConnectionID())
      await site.broker.viewerArrived(
        viewer,
        login: Login(user: UserName(rawValue: "alice"), pool: nil, peer: PeerAddress("10.1.2.3")))
      while viewer.link == nil { await Task.yield() }
      try await body(client, viewer)
    }
  }

  private func carrel(_ client: ControlClient, _ arguments: String..., input: String = "")
    async throws -> Home.Result
  {
    let (home, socket) = (home, client.socketPath)
    return try await aside {
      try home.run(
        path: try Home.program("carrel"), ["desktop", "agent"] + arguments,
        environment: ["CARREL_SOCKET": socket], input: input)
    }
  }

  @Test("what an administrator does in a guest is in its owner's history before it is done")
  func recorded() async throws {
    try await serving { client, _ in
      let exec = try await carrel(
        client, "exec", "office-1", "--stdin", "--", "cat", "-n", input: "to be read")
      #expect(exec.code == 0, "\(exec.errors)")
      #expect(exec.output == "cat -n")
      #expect(exec.errors == "to be read")
      let password = try await carrel(
        client, "password", "office-1", "root", "--password-stdin", input: "Xk7-unmistakable\n")
      #expect(password.output == "The password of root in office-1 is changed.\n")
      site.agent.refuse(with: LaunchError(.agentRefused, "the guest agent refused"))
      let freeze = try await carrel(client, "freeze", "office-1")
      #expect(freeze.code == 3)
      #expect(freeze.errors == "carrel: the guest agent refused\n")

      let explanation: ExplanationDocument = try await client.get(
        APIPath("users", "alice", "explanation"))
      let entries = explanation.history.filter { $0.reason.hasPrefix("agent-") }
      #expect(entries.map(\.reason) == ["agent-exec", "agent-password", "agent-freeze"])
      #expect(entries.map(\.desktop) == ["office-1", "office-1", "office-1"])
      #expect(entries.first?.text == "office-1, by the administrator: runs in it: cat -n")
      #expect(!entries.contains { $0.text.contains("Xk7") })
    }
    #expect(
      site.agent.requests == [
        .execute(
          AgentProgram(command: ["cat", "-n"], input: Array("to be read".utf8)), seconds: 30),
        .setPassword(user: "root", password: Array("Xk7-unmistakable".utf8)), .freeze,
      ])
  }

  @Test("looking is not recorded")
  func looking() async throws {
    try await serving { client, _ in
      let network = try await carrel(client, "network", "office-1")
      #expect(network.output.contains("eth0       52:54:00:12:34:56  192.0.2.7/24"))
      let info = try await carrel(client, "info", "office-1")
      #expect(info.output.contains("disabled: guest-set-time"))
      #expect(try await carrel(client, "ping", "office-1").code == 0)
      #expect(try await carrel(client, "freeze-status", "office-1").code == 0)
      let explanation: ExplanationDocument = try await client.get(
        APIPath("users", "alice", "explanation"))
      #expect(!explanation.history.contains { $0.reason.hasPrefix("agent-") })
    }
  }

  @Test("an agent that does not answer is an error of the host, in its words")
  func silent() async throws {
    try await serving { client, _ in
      site.agent.refuse(with: LaunchError(.noAgent, "is qemu-guest-agent installed?"))
      for verb in ["ping", "info", "network", "freeze", "thaw", "freeze-status"] {
        let result = try await carrel(client, verb, "office-1")
        #expect(result.code == 6)
        #expect(result.errors == "carrel: is qemu-guest-agent installed?\n")
        #expect(result.output.isEmpty)
      }
    }
  }

  @Test("a program that fails, or that still runs, is a failure of the command")
  func failing() async throws {
    try await serving { client, _ in
      let failed = try await carrel(client, "exec", "office-1", "--", "false")
      #expect(failed.code == 1)
      #expect(failed.output == "false")
      #expect(failed.errors == "carrel: false ended with status 3\n")
      let running = try await carrel(client, "exec", "office-1", "--seconds", "0", "--", "sleep")
      #expect(running.code == 6)
      #expect(running.errors.contains("'carrel desktop agent exec-status office-1 41' asks again"))
    }
  }

  @Test("a desktop in use is shut down by force only, and one that is off is asked nothing")
  func refused() async throws {
    try await serving { client, viewer in
      let inUse = try await carrel(client, "shutdown", "office-1")
      #expect(inUse.code == 3)
      #expect(inUse.errors.contains("'carrel desktop agent shutdown office-1 --force'"))
      #expect(try await carrel(client, "shutdown", "office-1", "--force").code == 0)
      #expect(site.agent.requests == [.shutdown(.powerdown)])

      let _: DesktopDocument = try await client.post(
        APIPath("desktops", "office-1", "stop", query: [("force", "true")]))
      while await site.broker.snapshot.desktops.values.first?.power != .off { await Task.yield() }
      let off = try await carrel(client, "exec", "office-1", "--", "true")
      #expect(off.code == 3)
      #expect(off.errors.contains("'carrel desktop start office-1'"))
    }
    #expect(site.agent.requests.count == 1)
  }

  @Test("what the agent could not do anything with is not asked of it")
  func invalid() async throws {
    try await serving { client, _ in
      #expect(try await carrel(client, "exec", "office-1").code == 64)
      #expect(try await carrel(client, "exec", "nix-1", "--", "true").code == 2)
      #expect(try await carrel(client, "shutdown", "office-1", "--halt", "--reboot").code == 64)
      let long = String(repeating: "x", count: 40_000)
      let input = try await carrel(client, "exec", "office-1", "--stdin", "--", "cat", input: long)
      #expect(input.code == 4)
      #expect(input.errors.contains("32 KiB"))
      let bodies: [(HTTPMethodName, APIPath, [String: String])] = [
        (
          .put, APIPath("desktops", "office-1", "agent", "password"), ["user": "", "password": "x"]
        ),
        (.post, APIPath("desktops", "office-1", "agent", "shutdown"), ["mode": "explode"]),
      ]
      for (method, path, body) in bodies {
        let error = await #expect(throws: ControlClientError.self) {
          try await method.send(client, path, body)
        }
        #expect(error?.kind == .refused(.invalid))
      }
      for program in [
        AgentProgramDocument(command: []),
        AgentProgramDocument(command: ["true"], seconds: 1_000_000),
      ] {
        let error = await #expect(throws: ControlClientError.self) {
          try await client.send(.POST, APIPath("desktops", "office-1", "agent", "exec"), program)
        }
        #expect(error?.kind == .refused(.invalid))
      }
      let process = await #expect(throws: ControlClientError.self) {
        try await client.bytes(APIPath("desktops", "office-1", "agent", "exec", "-1"))
      }
      #expect(process?.kind == .refused(.invalid))
    }
    #expect(site.agent.requests.isEmpty)
  }
}

/// So that a test needs no HTTP library.
private enum HTTPMethodName {
  case put, post

  func send(_ client: ControlClient, _ path: APIPath, _ body: [String: String]) async throws {
    switch self {
    case .put: try await client.send(.PUT, path, body)
    case .post: try await client.send(.POST, path, body)
    }
  }
}
