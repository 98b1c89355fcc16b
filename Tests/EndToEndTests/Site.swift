import Foundation
import LinuxSystem
import TestSupport

/// Why a test could not go on.
struct SiteError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

/// How a program ended and what it said.
struct Outcome: Sendable {
  let exit: ChildProcess.Exit
  let output: String
  let complaint: String

  var isSuccess: Bool { exit == .exited(0) }
}

/// A whole site in a directory of its own: the real carreld, driven by the real carrel.
final class Site: Sendable {
  let directory: TemporaryDirectory
  let state: String
  private let daemon = Guarded<ChildProcess?>(nil)
  private let count = Guarded(0)
  private let before: String?

  var runtime: String { directory.path("run") }
  private var log: String { directory.path("carreld.log") }
  private var control: String { runtime + "/control.sock" }

  /// What the configuration says, and what carreld is started through.
  struct Settings: Sendable {
    /// Values by key in the section `gateway`, over those that tests want.
    var gateway: [String: String] = [:]
    var programs: [String: String] = [:]
    /// Other sections.
    var more = ""
    /// Shell commands before carreld, in a mount namespace of its own.
    var before: String?
  }

  private init(_ settings: Settings, state: String?) throws {
    directory = try TemporaryDirectory()
    self.state = state ?? directory.path("state")
    before = settings.before
    try configure(settings)
  }

  /// Writes the configuration for the next start.
  func configure(_ settings: Settings) throws {
    let gateway = [
      "listen": "[\"127.0.0.1:0\"]", "web": "[\"127.0.0.1:0\"]", "web_tls": "false",
      "handshake_seconds": "10",
    ].merging(settings.gateway) { $1 }
    let programs = [
      "vmm": Programs.built("carrel-vmm"), "display": Programs.built("carrel-display"),
    ].merging(settings.programs) { $1 }
    func section(_ name: String, _ values: [String: String]) -> String {
      "\(name):\n" + values.map { "  \($0): \($1)\n" }.sorted().joined()
    }
    let configuration =
      "state_directory: \(state)\nruntime_directory: \(runtime)\n"
      + section("gateway", gateway) + section("programs", programs) + settings.more + "\n"
    try directory.write(Array(configuration.utf8), to: "carrel.yaml")
  }

  /// Gives `body` a site, and leaves no process of it behind. What carreld logged is
  /// told with what `body` throws.
  static func open(
    failpoint: String? = nil, _ settings: Settings = Settings(), state: String? = nil,
    _ body: (Site) async throws -> Void
  ) async throws {
    let site = try Site(settings, state: state)
    defer { site.endAll() }
    do {
      try await site.start(failpoint: failpoint)
      try await body(site)
    } catch {
      let tail = site.logged.split(separator: "\n").suffix(25).joined(separator: "\n")
      throw SiteError("\(error)\ncarreld's log ends with:\n\(tail)")
    }
  }

  private func endAll() {
    if let child = daemon.withLock({ $0 }) {
      try? child.handle.send(.kill)
      _ = try? child.wait()
    }
    for machine in machines.values { try? machine.send(.kill) }
  }
}

// MARK: - carreld

extension Site {
  /// Starts carreld; returns when it answers, or when it died at `failpoint`.
  func start(failpoint: String? = nil) async throws {
    let log = try FileDescriptor.open(self.log, [.writeOnly, .create, .append])
    let words = [Programs.built("carreld"), "--config", directory.path("carrel.yaml")]
    var request = ChildProcess.Request(words[0], Array(words.dropFirst()))
    if let before {
      request = ChildProcess.Request(
        "/usr/bin/unshare", ["-m", "/bin/sh", "-c", "\(before) && exec \"$@\"", "sh"] + words)
    }
    request.environment = ["PATH": "/usr/bin:/bin", "CARREL_FAILPOINT": failpoint ?? ""]
    request.descriptors = [1: log, 2: log]
    request.newSession = true
    let child = try ChildProcess(request)
    daemon.withLock { $0 = child }
    try await eventually("carreld answers", within: 60) {
      if child.handle.isRunning { return try await self.carrel("status").isSuccess }
      guard failpoint != nil else { throw SiteError("carreld ended: \(try child.wait())") }
      return true
    }
  }

  var daemonNumber: Int32? { daemon.withLock { $0?.handle.identifier } }

  var isRunning: Bool { daemon.withLock { $0?.handle.isRunning ?? false } }

  /// Ends carreld as `systemctl stop` does.
  func stop() async throws {
    try daemon.withLock { $0 }?.handle.send(.terminate)
    _ = try await daemonEnd()
  }

  /// Ends carreld as the kernel would.
  func kill() async throws {
    try daemon.withLock { $0 }?.handle.send(.kill)
    _ = try await daemonEnd()
  }

  /// Waits for carreld to end by itself.
  func daemonEnd() async throws -> ChildProcess.Exit {
    guard let child = daemon.withLock({ $0 }) else { throw SiteError("carreld was not started") }
    try await eventually("carreld ends", within: 60) { !child.handle.isRunning }
    daemon.withLock { $0 = nil }
    return try child.wait()
  }

  var logged: String {
    String(decoding: (try? Files.read(log)) ?? [], as: UTF8.self)
  }
}

// MARK: - carrel

extension Site {
  func carrel(_ arguments: String..., input: String = "") async throws -> Outcome {
    try await carrel(arguments, input: input)
  }

  func carrel(_ arguments: [String], input: String = "") async throws -> Outcome {
    try await run(
      Programs.built("carrel"), arguments + ["--socket", control], input: input)
  }

  /// The answer to a command that has to succeed.
  func ask<Answer: Decodable>(
    _ type: Answer.Type, _ arguments: String..., input: String = ""
  ) async throws -> Answer {
    let outcome = try await run(
      Programs.built("carrel"), arguments + ["--json", "--socket", control], input: input)
    guard outcome.isSuccess else {
      throw SiteError("carrel \(arguments.joined(separator: " ")): \(outcome.complaint)")
    }
    return try JSONDecoder().decode(type, from: Data(outcome.output.utf8))
  }

  func run(
    _ program: String, _ arguments: [String], input: String = ""
  ) async throws -> Outcome {
    let number = count.withLock { count in
      count += 1
      return count
    }
    return try await Program.run(program, arguments, in: directory, number, input: input)
  }

  func pool(_ name: String) async throws -> PoolAnswer {
    try await ask(PoolAnswer.self, "pool", "show", name)
  }

  var desktops: [DesktopAnswer] {
    get async throws { try await ask([DesktopAnswer].self, "desktop", "list") }
  }

  func session(of user: String) async throws -> SessionAnswer? {
    try await ask([SessionAnswer].self, "session", "list").first { $0.user == user }
  }

  /// Where viewers (`vnc`) or browsers (`http`) connect.
  func port(_ scheme: String) async throws -> UInt16 {
    let addresses = try await ask(StatusAnswer.self, "status").addresses
    guard let address = addresses.first(where: { $0.hasPrefix(scheme) }),
      let colon = address.lastIndex(of: ":"),
      let port = UInt16(address[address.index(after: colon)...].prefix { $0.isNumber })
    else { throw SiteError("no \(scheme) in \(addresses)") }
    return port
  }

  /// A pool of demo desktops, an entitled user, and a spare that is ready. What is
  /// there already stays.
  func furnish(_ pool: String = "lounge", for user: String = "alice", _ options: [String] = [])
    async throws
  {
    try await repeatable(["user", "add", user, "--no-password"])
    try await repeatable(
      [
        "pool", "create", pool, "--image", try DemoDesktop.path(), "--size", "3", "--spares", "1",
        "--memory", "64M", "--no-wait",
      ] + options)
    try await repeatable(["entitle", user, pool])
  }

  /// A command whose work may have been done already.
  func repeatable(_ arguments: [String]) async throws {
    let outcome = try await run(
      Programs.built("carrel"), arguments + ["--socket", control])
    guard outcome.isSuccess || outcome.exit == .exited(3) else {
      throw SiteError("carrel \(arguments.joined(separator: " ")): \(outcome.complaint)")
    }
  }

  /// Waits until the pool has the spares it wants and nothing is under way.
  func settle(_ name: String = "lounge") async throws {
    try await eventually("pool \(name) has its spare") {
      let pool = try await self.pool(name)
      return pool.desktops.clean == pool.spares && pool.desktops.preparing == 0
        && pool.desktops.failed == 0
        && pool.desktops.total == pool.desktops.clean + pool.desktops.assigned
    }
  }

  /// Logs the user in by ticket and waits until the desktop is theirs.
  func logIn(_ user: String = "alice", room: Int32? = nil) async throws -> Viewer {
    let ticket = try await ask(TicketAnswer.self, "ticket", user).ticket
    let viewer = try Viewer(port: try await port("vnc"), room: room)
    try await viewer.logIn(ticket: ticket)
    try await eventually("\(user) is connected") {
      try await self.session(of: user)?.state == "connected"
    }
    return viewer
  }
}
