import Brokering
import ControlAPI
import ControlClient
import ControlServer
import Foundation
import Testing
import Yams

@Suite("The control API with viewers")
struct SessionAPITests {
  private let site: InProcess

  init() throws { site = try InProcess() }

  @Test("a session is listed while it lasts, and ending it says goodbye to the viewer")
  func sessions() async throws {
    try await site.serving { client in
      let alice = UserName(rawValue: "alice")
      try await prepare(client)
      let viewer = TestViewer(await site.broker.nextConnectionID())
      await site.broker.viewerArrived(
        viewer, login: Login(user: alice, pool: nil, peer: PeerAddress("10.1.2.3")))
      while viewer.link == nil { await Task.yield() }

      let sessions: [SessionDocument] = try await client.get(APIPath("sessions"))
      let session = try #require(sessions.first)
      #expect(session.user == "alice")
      #expect(session.desktop == "office-1")
      #expect(session.state == "connected")
      #expect(session.peer == "10.1.2.3")
      let desktop: DesktopDocument = try await client.get(APIPath("desktops", "office-1"))
      #expect(desktop.viewer == "10.1.2.3")
      #expect(desktop.displayLink == viewer.link)
      let status: StatusDocument = try await client.get(APIPath("status"))
      #expect(status.viewers == 1)
      #expect(status.addresses == ["vnc://here"])

      try await client.delete(APIPath("sessions", session.id))
      #expect(viewer.farewell == "Your session was ended.")
      let left: [SessionDocument] = try await client.get(APIPath("sessions"))
      #expect(left.isEmpty)
      let explanation: ExplanationDocument = try await client.get(
        APIPath("users", "alice", "explanation"))
      #expect(
        explanation.history.map(\.reason) == [
          "login-clean-spare", "session-connected", "session-ended-by-administrator",
        ])
    }
  }

  @Test("a desktop that starts is shown with what its start is at")
  func starting() async throws {
    let (asked, ask) = AsyncStream<Void>.makeStream()
    let site = try InProcess(
      ready: { for await _ in asked { break } }, step: .mergingDisk(percent: 40))
    try await site.serving { client in
      var creation = PoolCreation(
        name: "office", kind: "floating", image: ImageDocument(path: try Home.program("carrel")))
      creation.size = 1
      let _: PoolDocument = try await client.send(.POST, APIPath("pools"), creation)
      var desktop: DesktopDocument
      repeat {
        desktop = try await client.get(APIPath("desktops", "office-1"))
        await Task.yield()
      } while desktop.step == nil
      #expect(desktop.power == "starting" && desktop.step == "merging its disk")
      #expect(desktop.percent == 40)
      for command in ["desktop list", "desktop show office-1"] {
        let line =
          "CARREL_SOCKET=\(client.socketPath) '\(try Home.program("carrel"))' \(command)"
        let (status, output) = try await aside { try site.directory.run(line) }
        #expect(status == 0)
        #expect(output.contains("starting, merging its disk (40 %)"), "\(output)")
      }
      ask.yield()
      repeat {
        desktop = try await client.get(APIPath("desktops", "office-1"))
        await Task.yield()
      } while desktop.power != "running"
      #expect(desktop.step == nil && desktop.percent == nil)
    }
  }

  @Test("a desktop in use is stopped and released by force only")
  func force() async throws {
    try await site.serving { client in
      try await prepare(client)
      let viewer = TestViewer(await site.broker.nextConnectionID())
      await site.broker.viewerArrived(
        viewer,
        login: Login(user: UserName(rawValue: "alice"), pool: nil, peer: PeerAddress("10.1.2.3")))
      while viewer.link == nil { await Task.yield() }
      for verb in ["stop", "release"] {
        let error = await #expect(throws: ControlClientError.self) {
          let _: DesktopDocument = try await client.post(APIPath("desktops", "office-1", verb))
        }
        #expect(error?.kind == .refused(.conflict))
        #expect(error?.context.contains("--force") == true)
      }
      let _: DesktopDocument = try await client.post(
        APIPath("desktops", "office-1", "stop", query: [("force", "true")]))
      #expect(viewer.farewell == "Your desktop was switched off by the administrator.")
    }
  }

  @Test("a desktop that gives no screenshot is an error of the host")
  func screenshot() async throws {
    try await site.serving { client in
      try await prepare(client)
      let error = await #expect(throws: ControlClientError.self) {
        try await client.bytes(APIPath("desktops", "office-1", "screenshot"))
      }
      #expect(error?.kind == .refused(.host))
      #expect(error?.context.contains("does not answer: reset it") == true)
    }
  }

  @Test("bodies that cannot be read, and paths that do not exist, are errors")
  func garbage() async throws {
    try await site.serving { client in
      let body = await #expect(throws: ControlClientError.self) {
        try await client.send(.POST, APIPath("pools"), ["name": "x"])
      }
      #expect(body?.kind == .refused(.invalid))
      let path = await #expect(throws: ControlClientError.self) {
        try await client.bytes(APIPath("planets"))
      }
      #expect(path?.kind == .refused(.notFound))
    }
  }

  @Test("a body that is too large is refused as JSON, and only that request suffers")
  func oversized() async throws {
    try await site.serving { client in
      let creation = UserCreation(name: "alice", password: String(repeating: "x", count: 200_000))
      let error = await #expect(throws: ControlClientError.self) {
        try await client.send(.POST, APIPath("users"), creation)
      }
      #expect(error?.kind == .refused(.invalid))
      #expect(error?.context.contains("POST /v1/users is larger than 64 KiB: send less") == true)
      let users: [UserDocument] = try await client.get(APIPath("users"))
      #expect(users.isEmpty)
    }
  }

  @Test("the connection of a body that is too large ends with the answer")
  func oversizedConnection() async throws {
    try await site.serving { client in
      let answer = try await RawExchange.send(
        "POST /v1/users HTTP/1.1\r\nHost: carreld\r\nContent-Length: 1000000\r\n\r\n"
          + String(repeating: " ", count: 70_000), to: client.socketPath)
      #expect(answer.hasPrefix("HTTP/1.1 413 "))
      #expect(answer.lowercased().contains("connection: close"))
      #expect(answer.contains(#""kind":"invalid""#))
    }
  }

  @Test("the OpenAPI document describes every route that there is, and no other")
  func openAPI() throws {
    let path = #filePath.components(separatedBy: "/Tests/")[0] + "/config/openapi.yaml"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let document = try #require(try Yams.compose(yaml: text))
    var documented: [String] = []
    for (path, methods) in try #require(document["paths"]?.mapping) {
      for (method, _) in try #require(methods.mapping) where method.string != "parameters" {
        documented.append("\((method.string ?? "").uppercased()) \(path.string ?? "")")
      }
    }
    #expect(
      documented.sorted()
        == ControlServer.routes(of: site.broker, site.library, site.templates, site.backups)
        .sorted())
  }

  /// A pool with a clean desktop, and Alice who may use it.
  private func prepare(_ client: ControlClient) async throws {
    var creation = PoolCreation(
      name: "office", kind: "floating", image: ImageDocument(path: try Home.program("carrel")))
    creation.size = 1
    let _: PoolDocument = try await client.send(.POST, APIPath("pools"), creation)
    let _: UserDocument = try await client.send(
      .POST, APIPath("users"), UserCreation(name: "alice", password: nil))
    let _: UserDocument = try await client.put(APIPath("users", "alice", "pools", "office"))
    while await site.broker.snapshot.desktops.values.first?.phase != .clean { await Task.yield() }
  }
}
