import Brokering
import ControlAPI
import ControlClient
import TestSupport
import Testing

@Suite("The host's memory in the control API")
struct MemoryAPITests {
  private func status(
    _ client: ControlClient, until isDone: (StatusDocument) -> Bool
  ) async throws -> StatusDocument {
    while true {
      let status: StatusDocument = try await client.get(APIPath("status"))
      if isDone(status) { return status }
      await Task.yield()
    }
  }

  @Test("status shows it, and an explanation says that a login would wait for it")
  func shown() async throws {
    let site = try InProcess(memory: MemoryReading(totalMiB: 8000, availableMiB: 300))
    try await site.serving { client in
      let status = try await status(client) { $0.memory != nil }
      #expect(
        status.memory
          == MemoryDocument(
            state: "critical", totalMiB: 8000, availableMiB: 300, promisedMiB: 0,
            limitMiB: 12_000, reserveMiB: 1024))
      let alice = UserName(rawValue: "alice")
      let office = PoolName(rawValue: "office")
      try await site.broker.perform(
        .createPool(
          Pool(
            name: office, kind: .floating, image: Image(kind: .kernel, path: "/demo"), size: 2,
            spares: 2, policies: PoolPolicies(), created: Timestamp(milliseconds: 0))))
      try await site.broker.perform(.addUser(alice, verifier: nil))
      try await site.broker.perform(.entitle(alice, office))
      #expect(await site.broker.snapshot.desktops.isEmpty, "nor are spares started")
      let explanation: ExplanationDocument = try await client.get(
        APIPath("users", "alice", "explanation"))
      #expect(explanation.now.first?.reason == "login-waiting-memory")
    }
  }

  @Test("a desktop that is started says that it waits for it, and for how much")
  func waiting() async throws {
    let site = try InProcess(memory: MemoryReading(totalMiB: 8000, availableMiB: 8000))
    try await site.serving { client in
      _ = try await status(client) { $0.memory != nil }
      let (alice, office) = (UserName(rawValue: "alice"), PoolName(rawValue: "office"))
      try await site.broker.perform(
        .createPool(
          Pool(
            name: office, kind: .dedicated, image: Image(kind: .kernel, path: "/demo"),
            memoryMiB: 6000, size: 1, spares: 1, policies: PoolPolicies(),
            created: Timestamp(milliseconds: 0))))
      try await site.broker.perform(.addUser(alice, verifier: nil))
      try await site.broker.perform(.entitle(alice, office))
      let desktop = APIPath("desktops", "office-1")
      func shown(_ isDone: (DesktopDocument) -> Bool) async throws {
        while try await !isDone(client.get(desktop)) { await Task.yield() }
      }
      try await shown { $0.power == "running" }
      try await site.broker.perform(.assignDesktop(DesktopID(rawValue: "office-1"), alice))
      try await site.broker.perform(.stopDesktop(DesktopID(rawValue: "office-1"), force: true))
      try await shown { $0.power == "off" }
      // What it took is not measured as free yet.
      let home = try Home()
      let socket = client.socketPath
      func start(_ words: String...) async throws -> Home.Result {
        try await aside {
          try home.run(
            path: try Home.program("carrel"), ["desktop", "start", "office-1"] + words,
            environment: ["CARREL_SOCKET": socket])
        }
      }
      let reason =
        "it needs 6048 MiB of memory, and the host has 1952 MiB available, of which 1024 MiB stay "
        + "free"
      let begun = try await start("--no-wait", "--json")
      #expect(begun.code == 0 && begun.errors.isEmpty)
      let document = try begun.json(DesktopDocument.self)
      #expect(document.waiting == reason && document.power == "off")
      let awaited = try await start()
      #expect(awaited.code == 6)
      #expect(awaited.output.contains("Desktop office-1 is off and waits: \(reason)."))
      #expect(awaited.errors.contains("'office-1' does not run yet"), "\(awaited.errors)")
    }
  }

  @Test("a pool whose spares find no memory is made, and says why they wait, here and in status")
  func spares() async throws {
    let site = try InProcess(memory: MemoryReading(totalMiB: 8000, availableMiB: 2000))
    try await site.serving { client in
      _ = try await status(client) { $0.memory != nil }
      let home = try Home()
      func carrel(_ words: String...) async throws -> Home.Result {
        try await client.carrel(words, in: home)
      }
      let made = try await carrel(
        "pool", "create", "office", "--image", home.image, "--size", "3", "--spares", "2",
        "--memory", "700M")
      let reason =
        "1 of 2 spares wait: one needs 748 MiB of memory, and the host has 1252 MiB available, of "
        + "which 1024 MiB stay free"
      #expect(made.code == 6, "\(made.errors)")
      #expect(made.output.contains("Pool office is made, 1 of 2 spares are ready."))
      #expect(made.errors.contains("'office' has not all of its spares yet: \(reason)."))
      #expect(made.errors.contains("'carrel pool set office --spares'"))
      let shown: PoolDocument = try await client.get(APIPath("pools", "office"))
      #expect(shown.waiting == reason && shown.problem == nil)
      #expect(try await carrel("pool", "show", "office").output.contains(reason))
      #expect(try await carrel("status").output.contains("pool office: \(reason)"))
      let never = try await carrel(
        "pool", "create", "large", "--image", home.image, "--memory", "11G", "--spares", "1")
      #expect(never.code == 4 && never.errors.contains("are kept for logins"), "\(never.errors)")
    }
  }

  @Test("status says nothing of it where it is not measured")
  func unknown() async throws {
    let site = try InProcess()
    try await site.serving { client in
      let status: StatusDocument = try await client.get(APIPath("status"))
      #expect(status.memory == nil)
    }
  }
}
