import Brokering
import ControlAPI
import ControlClient
import TestSupport
import Testing

@Suite("Backups and archives in the control API")
struct BackupAPITests {
  private static let failures: [(kind: BrokerError.Kind, code: Int32)] = [
    (.storage, 5), (.conflict, 3), (.invalid, 4), (.host, 6),
  ]

  @Test("what fails ends carrel with its kind of error", arguments: failures)
  func failure(_ kind: BrokerError.Kind, _ code: Int32) async throws {
    let error = BrokerError(kind, "it cannot be done")
    let site = try InProcess()
    site.backups.fail(with: error)
    try await site.serving { client in
      let home = try Home()
      let socket = client.socketPath
      let result = try await aside {
        try home.run(
          path: try Home.program("carrel"), ["export", "lab@3", "/srv/lab.carrel", "--json"],
          environment: ["CARREL_SOCKET": socket])
      }
      #expect(result.code == code)
      let job = try result.json(BackupJobDocument.self)
      #expect(job.problem == error.description && job.problemKind?.rawValue == error.kind.rawValue)
    }
  }

  @Test("an export is of a desktop before a pool of its name, and of any template by its own")
  func subjects() async throws {
    let site = try InProcess()
    try await site.serving { client in
      for (name, spares) in [("office", 1), ("office-1", 0)] {
        try await site.broker.perform(
          .createPool(
            Pool(
              name: PoolName(rawValue: name), kind: .floating,
              image: Image(kind: .kernel, path: "/demo"), size: 2, spares: spares,
              policies: PoolPolicies(), created: Timestamp(milliseconds: 0))))
      }
      func exported(_ subject: String) async throws -> [String] {
        var request = BackupRequest()
        (request.subject, request.file) = (subject, "/srv/file")
        let job: BackupJobDocument = try await client.send(
          .POST, APIPath("backups", "export"), request)
        return job.results.map(\.desktop)
      }
      #expect(try await exported("office-1") == ["office-1"])
      #expect(try await exported("office") == ["office@7"])
      #expect(try await exported("office-1@2") == ["office-1@2"])
      #expect(try await exported("gone@18446744073709551615") == ["gone@18446744073709551615"])
      for (subject, kind) in [
        ("nothing", ErrorDocument.Kind.notFound), ("office@", .invalid), ("office@x", .invalid),
        ("@1", .invalid), ("../office@1", .invalid), ("office@1@2", .invalid),
      ] {
        let error = await #expect(throws: ControlClientError.self) { try await exported(subject) }
        #expect(error?.kind == .refused(kind), "\(subject)")
      }
    }
  }
}
