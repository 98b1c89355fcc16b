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

  @Test("a key that cannot be read is refused before anything is asked of carreld")
  func keys() throws {
    let home = try Home()
    _ = try home.directory.run("mkdir place && touch empty && printf '\\n\\n' > blank")
    _ = try home.directory.run("printf '\\377\\376' > binary && printf 'key\\nmore\\n' > good")
    func list(_ words: String..., input: String = "") throws -> Home.Result {
      try home.run("carrel", ["backup", "list", "--from", "/srv/backups"] + words, input: input)
    }
    for (file, reason) in [
      ("none", "the key file none cannot be read (No such file or directory): name one"),
      ("place", "the key file place cannot be read (it is no file)"),
      ("binary", "binary holds no key: it is not text"),
      ("empty", "empty holds no key: its first line is the key"),
      ("blank", "blank holds no key"),
    ] {
      let result = try list("--key-file", file)
      #expect(result.code == 4 && result.errors.contains(reason), "\(file): \(result.errors)")
    }
    let piped = try list("--key-stdin")
    #expect(piped.code == 4 && piped.errors.contains("standard input holds no key: pipe one in"))
    let both = try list("--key-stdin", "--key-file", "good")
    #expect(both.code == 64 && both.errors.contains("either --key-file or --key-stdin"))
    // There is none to ask.
    #expect(try list("--key-file", "good").code == 69)
  }

  @Test("the key is the first line of its file")
  func key() async throws {
    let site = try InProcess()
    try await site.serving { client in
      try await site.broker.perform(
        .createPool(
          Pool(
            name: PoolName(rawValue: "office"), kind: .floating,
            image: Image(kind: .kernel, path: "/demo"), size: 2, spares: 0,
            policies: PoolPolicies(), created: Timestamp(milliseconds: 0))))
      let bob = UserName(rawValue: "bob")
      try await site.broker.perform(.addUser(bob, verifier: nil))
      try await site.broker.perform(.entitle(bob, PoolName(rawValue: "office")))
      let home = try Home()
      _ = try home.directory.write([UInt8]("a secret\nand more\n".utf8), to: "key")
      let socket = client.socketPath
      let result = try await aside {
        try home.run(
          path: try Home.program("carrel"),
          [
            "backup", "restore", "0123abcd", "--from", "/srv/backups", "--owner", "bob",
            "--key-file", "key",
          ], environment: ["CARREL_SOCKET": socket])
      }
      #expect(result.code == 0 && result.output.contains("opened with a secret."))
    }
  }

  @Test("the list of jobs says of each what it did")
  func jobs() async throws {
    let site = try InProcess()
    try await site.serving { client in
      let home = try Home()
      for words in [
        ["export", "lab@3", "/srv/lab.carrel"], ["backup", "verify", "--from", "/srv/backups"],
        ["backup", "prune", "--from", "/srv/backups", "--keep-last", "3"],
      ] {
        let result = try await client.carrel(words, in: home)
        try #require(result.code == 0, "\(result.errors)")
      }
      site.backups.fail(with: BrokerError(.host, "it cannot be done"))
      _ = try await client.carrel(["export", "lab@4", "/srv/lab.carrel"], in: home)
      let lines = try await client.carrel(["backup", "jobs"], in: home).output
        .split(separator: "\n")
      #expect(lines.map { $0.hasSuffix(" -") } == Array(repeating: false, count: 5))
      for (line, text) in zip(
        lines.dropFirst(),
        ["lab@3", "there are no backups", "nothing was to be done", "it cannot be done"])
      {
        #expect(line.hasSuffix("  " + text), "\(line)")
      }
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
