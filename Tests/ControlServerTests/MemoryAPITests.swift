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

  @Test("status says nothing of it where it is not measured")
  func unknown() async throws {
    let site = try InProcess()
    try await site.serving { client in
      let status: StatusDocument = try await client.get(APIPath("status"))
      #expect(status.memory == nil)
    }
  }
}
