import Brokering
import ControlAPI
import ControlClient
import Foundation
import TestSupport
import Testing

/// A command line whose answer in JSON is looked at; `@` stands for a file to write,
/// `IMAGE` for something to boot.
struct JSONVerb: CustomTestStringConvertible, Sendable {
  let words: [String]
  let input: String
  /// The answer, or what cannot be decoded.
  let isRight: @Sendable (Data) throws -> Bool

  var testDescription: String { words.joined(separator: " ") }

  init<Answer: Decodable & SendableMetatype>(
    _ line: String, as type: Answer.Type, input: String = "",
    _ isRight: @escaping @Sendable (Answer) -> Bool
  ) {
    words = line.split(separator: " ").map(String.init)
    self.input = input
    self.isRight = { isRight(try JSONDecoder().decode(type, from: $0)) }
  }

  /// What commands say whose object is gone afterwards.
  struct Gone: Decodable {
    let deleted: String?
    let ended: String?
    let revoked: String?
    let changed: String?
    let file: String?
  }

  struct Code: Decodable {
    let code: Int
    let meaning: String
  }

  static let all: [JSONVerb] =
    pools + images + desktops + snapshots + templates + backups + agents + users + others

  private static let pools = [
    JSONVerb("pool create study --kind dedicated --image IMAGE --size 1", as: PoolDocument.self) {
      $0.kind == "dedicated" && $0.desktops.clean == 1
    },
    JSONVerb("pool list", as: [PoolDocument].self) { $0.map(\.name) == ["office"] },
    JSONVerb("pool show office", as: PoolDocument.self) {
      $0.size == 3 && $0.hardware.networkQueues == 1
    },
    JSONVerb("pool set office --spares 0", as: PoolDocument.self) {
      $0.spares == 0 && $0.policies.diskIops == 0 && $0.policies.diskBandwidthBurst == 0
    },
    JSONVerb("pool delete office --force", as: Gone.self) { $0.deleted == "office" },
  ]

  private static let images = [
    JSONVerb("image list", as: [LibraryImageDocument].self) { $0.map(\.name) == ["debian"] },
    JSONVerb("image show debian", as: LibraryImageDocument.self) { $0.state == "ready" },
    JSONVerb("image import IMAGE --name new", as: LibraryImageDocument.self) {
      $0.name == "new" && $0.state == "ready"
    },
    JSONVerb("image build new --desktop none", as: LibraryImageDocument.self) {
      $0.name == "new" && $0.origin == "bookworm"
    },
    JSONVerb("image delete debian", as: Gone.self) { $0.deleted == "debian" },
  ]

  private static let desktops = [
    JSONVerb("desktop list", as: [DesktopDocument].self) {
      $0.map(\.pool) == ["office", "office"]
    },
    JSONVerb("desktop show office-1", as: DesktopDocument.self) { $0.owner == "alice" },
    JSONVerb("desktop start office-2", as: DesktopDocument.self) { $0.power == "running" },
    JSONVerb("desktop stop office-2", as: DesktopDocument.self) { $0.power == "off" && $0.held },
    JSONVerb("desktop reset office-2", as: DesktopDocument.self) { $0.id == "office-2" },
    JSONVerb("desktop suspend office-1 --force", as: DesktopDocument.self) {
      $0.phase == "suspended" && $0.power == "off"
    },
    JSONVerb("desktop resume office-1", as: DesktopDocument.self) { $0.power == "running" },
    JSONVerb("desktop assign office-2 bob", as: DesktopDocument.self) { $0.owner == "bob" },
    JSONVerb("desktop release office-1 --force", as: DesktopDocument.self) { $0.owner == nil },
    JSONVerb("desktop delete office-2", as: Gone.self) { $0.deleted == "office-2" },
    JSONVerb("desktop screenshot office-1 -o @", as: Gone.self) { $0.file?.isEmpty == false },
  ]

  private static let snapshots = [
    JSONVerb("snapshot create office-1 fresh", as: SnapshotDocument.self) {
      $0.name == "fresh" && $0.memory && $0.state == "ready"
    },
    JSONVerb("snapshot list office-1", as: [SnapshotDocument].self) { $0.map(\.name) == ["first"] },
    JSONVerb("snapshot show office-1 first", as: SnapshotDocument.self) { $0.name == "first" },
    JSONVerb("snapshot revert office-1 first --force", as: DesktopDocument.self) {
      $0.power == "running" && $0.reverting == nil
    },
    JSONVerb("snapshot delete office-1 first", as: Gone.self) { $0.deleted == "first" },
  ]

  private static let templates = [
    JSONVerb("template create office", as: [TemplateDocument].self) {
      $0.map(\.generation) == [1, 2] && $0.allSatisfy { $0.state == "ready" }
    },
    JSONVerb("template list", as: [TemplateDocument].self) { $0.map(\.pool) == ["office"] },
    JSONVerb("template show office", as: [TemplateDocument].self) {
      $0.first?.sign == "it was asked for"
    },
    JSONVerb("template refresh office", as: [TemplateDocument].self) { $0.count == 2 },
    JSONVerb("template delete office", as: Gone.self) { $0.deleted == "office" },
  ]

  private static let backups = [
    JSONVerb("backup run office-1 --to /srv/backups", as: BackupJobDocument.self) {
      $0.state == "ready" && $0.results.map(\.desktop) == ["office-1"]
    },
    JSONVerb("backup list --to /srv/backups", as: [BackupDocument].self) {
      $0.map(\.desktop) == ["office-9"]
    },
    JSONVerb("backup verify --to /srv/backups", as: BackupJobDocument.self) {
      $0.kind == "verify"
    },
    JSONVerb(
      "backup restore 0123abcd --to /srv/backups --pool office --owner bob --key-stdin",
      as: BackupJobDocument.self, input: "secret\n"
    ) { $0.results.first?.desktop == "office-9" && $0.notes == ["opened with secret"] },
    JSONVerb("backup prune office --to /srv/backups --keep-last 3", as: BackupJobDocument.self) {
      $0.kind == "prune" && $0.state == "ready"
    },
    JSONVerb("backup jobs", as: [BackupJobDocument].self) { $0.isEmpty },
    JSONVerb("backup cancel b7", as: Gone.self) { $0.ended == "b7" },
    JSONVerb("export office-1 /srv/office-1.carrel", as: BackupJobDocument.self) {
      $0.kind == "export"
    },
    JSONVerb("export office /srv/office.carrel", as: BackupJobDocument.self) {
      $0.results.map(\.desktop) == ["office@7"]
    },
    JSONVerb("export other@3 /srv/office.carrel", as: BackupJobDocument.self) {
      $0.results.map(\.desktop) == ["other@3"]
    },
    JSONVerb("import /srv/office-1.carrel --pool office --owner bob", as: BackupJobDocument.self) {
      $0.kind == "import" && $0.results.first?.desktop == "office-9"
    },
  ]

  private static let agents = [
    JSONVerb("desktop agent ping office-1", as: Gone.self) { $0.changed == "office-1" },
    JSONVerb("desktop agent info office-1", as: AgentDocument.self) { $0.version == "7.2" },
    JSONVerb("desktop agent network office-1", as: [AgentInterfaceDocument].self) {
      $0.map(\.addresses) == [["192.0.2.7/24"]]
    },
    JSONVerb("desktop agent shutdown office-1 --force", as: Gone.self) {
      $0.changed == "office-1"
    },
    JSONVerb(
      "desktop agent password office-1 root --password-stdin", as: Gone.self, input: "secret\n"
    ) { $0.changed == "office-1" },
    JSONVerb("desktop agent freeze office-1", as: AgentFreezeDocument.self) {
      $0.frozen && $0.fileSystems == 2
    },
    JSONVerb("desktop agent thaw office-1", as: AgentFreezeDocument.self) {
      !$0.frozen && $0.fileSystems == 2
    },
    JSONVerb("desktop agent freeze-status office-1", as: AgentFreezeDocument.self) { !$0.frozen },
    JSONVerb("desktop agent exec office-1 --json -- echo hello", as: AgentExecutionDocument.self) {
      $0.ended && $0.output == Data("echo hello".utf8)
    },
    JSONVerb("desktop agent exec-status office-1 7", as: AgentExecutionDocument.self) {
      $0.ended && $0.process == 7
    },
  ]

  private static let users = [
    JSONVerb("user add carol --no-password", as: UserDocument.self) { !$0.hasPassword },
    JSONVerb("user passwd bob --password-stdin", as: Gone.self, input: "secret\n") {
      $0.changed == "bob"
    },
    JSONVerb("user list", as: [UserDocument].self) { $0.map(\.name) == ["alice", "bob"] },
    JSONVerb("user show alice", as: UserDocument.self) { $0.desktops == ["office-1"] },
    JSONVerb("user disable bob", as: UserDocument.self) { $0.disabled },
    JSONVerb("user enable bob", as: UserDocument.self) { !$0.disabled },
    JSONVerb("user delete bob", as: Gone.self) { $0.deleted == "bob" },
    JSONVerb("entitle alice office", as: UserDocument.self) { $0.pools == ["office"] },
    JSONVerb("revoke bob office", as: Gone.self) { $0.revoked == "office" },
    JSONVerb("ticket alice --pool office", as: TicketDocument.self) { $0.ticket == "abcdefgh" },
    JSONVerb("ticket alice/office", as: TicketDocument.self) {
      $0.user == "alice" && $0.pool == "office"
    },
    JSONVerb("ticket alice/office-1", as: TicketDocument.self) { $0.pool == "office-1" },
  ]

  private static let others = [
    JSONVerb("session list", as: [SessionDocument].self) { $0.map(\.user) == ["alice"] },
    JSONVerb("session show SESSION", as: SessionDocument.self) {
      $0.user == "alice" && $0.desktop == "office-1" && $0.state == "connected"
        && $0.peer == "10.1.2.3"
    },
    JSONVerb("session end SESSION", as: Gone.self) { $0.ended?.isEmpty == false },
    JSONVerb("status", as: StatusDocument.self) { $0.fingerprint == "AB:CD" && $0.viewers == 1 },
    JSONVerb("doctor", as: DoctorDocument.self) { $0.checks.first?.name == "carreld" },
    JSONVerb("explain user alice", as: ExplanationDocument.self) {
      $0.now.first?.reason == "login-existing-desktop"
    },
    JSONVerb("exit-codes", as: [Code].self) {
      $0.first { $0.code == 69 }?.meaning == "carreld does not answer"
    },
  ]
}

@Suite("Every command answers in JSON")
struct JSONOutputTests {
  @Test("on standard output, all of it, and nothing else", arguments: JSONVerb.all)
  func answer(_ verb: JSONVerb) async throws {
    let site = try InProcess(picture: [0x89, 0x50, 0x4E, 0x47])
    let home = try Home()
    try await site.serving { client in
      let session = try await furnish(site, client)
      let values = ["IMAGE": home.image, "@": home.directory.path("shot.png"), "SESSION": session]
      let words =
        verb.words.map { values[$0] ?? $0 } + (verb.words.contains("--json") ? [] : ["--json"])
      let socket = client.socketPath
      let result = try await aside {
        try home.run(
          path: try Home.program("carrel"), words, environment: ["CARREL_SOCKET": socket],
          input: verb.input)
      }
      #expect(result.code == 0, "\(result.errors)")
      #expect(result.errors.isEmpty)
      #expect(try verb.isRight(Data(result.output.utf8)), "\(result.output)")
    }
  }

  @Test("there is a test here for every command")
  func complete() throws {
    let home = try Home()
    struct Help: Decodable {
      struct Command: Decodable {
        let commandName: String
        let subcommands: [Command]?

        /// Without the program's own name.
        func lines(_ above: [String] = []) -> [String] {
          let below = subcommands?.filter { $0.commandName != "help" } ?? []
          guard !below.isEmpty else { return [above.joined(separator: " ")] }
          return below.flatMap { $0.lines(above + [$0.commandName]) }
        }
      }

      let command: Command
    }
    let help = try home.carrel("--experimental-dump-help").json(Help.self)
    for line in help.command.lines() {
      #expect(
        JSONVerb.all.contains { ($0.testDescription + " ").hasPrefix(line + " ") }, "\(line)")
    }
  }

  /// A pool with a desktop that Alice is on, and a clean one that Bob may have.
  private func furnish(_ site: InProcess, _ client: ControlClient) async throws -> String {
    var creation = PoolCreation(
      name: "office", kind: "floating", image: ImageDocument(path: try Home.program("carrel")))
    (creation.size, creation.spares) = (3, 1)
    let _: PoolDocument = try await client.send(.POST, APIPath("pools"), creation)
    for name in ["alice", "bob"] {
      let _: UserDocument = try await client.send(
        .POST, APIPath("users"), UserCreation(name: name, password: nil))
      let _: UserDocument = try await client.put(APIPath("users", name, "pools", "office"))
    }
    await untilClean(site)
    let viewer = TestViewer(await site.broker.nextConnectionID())
    await site.broker.viewerArrived(
      viewer,
      login: Login(user: UserName(rawValue: "alice"), pool: nil, peer: PeerAddress("10.1.2.3")))
    while viewer.link == nil { await Task.yield() }
    await untilClean(site)
    let _: SnapshotDocument = try await client.send(
      .POST, APIPath("desktops", "office-1", "snapshots"), SnapshotCreation(name: "first"))
    let _: [TemplateDocument] = try await client.send(
      .POST, APIPath("templates"), TemplateCreation(pool: "office"))
    let sessions: [SessionDocument] = try await client.get(APIPath("sessions"))
    return try #require(sessions.first).id
  }

  private func untilClean(_ site: InProcess) async {
    while true {
      let desktops = await site.broker.snapshot.desktops.values
      if desktops.contains(where: { $0.phase == .clean && $0.power == .running }) { return }
      await Task.yield()
    }
  }
}
