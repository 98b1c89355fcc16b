import Foundation
import LinuxSystem
import TestSupport
import Testing

extension EndToEnd {
  /// Each test starts carreld with several keys that are not at their defaults, and
  /// sees what they do. Times are far enough apart that none can stand in for another.
  @Suite("Every key of the configuration does what it says")
  struct SettingsTests {
    @Test("there is a test here for every key in config/carrel.yaml")
    func complete() throws {
      var section = ""
      var keys: Set<String> = []
      let text = String(
        decoding: try Files.read(Programs.repository + "/config/carrel.yaml"), as: UTF8.self)
      for line in text.split(separator: "\n") {
        guard let colon = line.firstIndex(of: ":"), !line.contains("#") else { continue }
        let name = line[..<colon].filter { $0 != " " }
        let isNested = line.hasPrefix("  ")
        if line.last == ":" {
          section = name
        } else {
          keys.insert(isNested ? "\(section).\(name)" : name)
        }
      }
      #expect(
        keys
          == Self.doors.union(Self.limits).union(Self.logins).union(Self.desktops)
          .union(MemoryTests.keys))
    }

    static let doors: Set = [
      "gateway.listen", "gateway.web", "gateway.web_tls", "gateway.certificate", "gateway.key",
      "gateway.tickets", "gateway.passwordless_user", "gateway.novnc_directory",
      "gateway.viewers", "gateway.cleartext_sessions", "log.level",
    ]

    @Test("who may come in, where, and by which certificate")
    func doors() async throws {
      let own = try TemporaryDirectory()
      let (status, output) = try own.run(
        """
        openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 90 \
          -subj /CN=library
        mkdir web && echo 'our own page' > web/vnc.html
        """)
      try #require(status == 0, "\(output)")
      let settings = Site.Settings(
        gateway: [
          "listen": "[\"127.0.0.2:0\"]", "web": "[\"127.0.0.3:0\"]", "web_tls": "true",
          "certificate": own.path("cert.pem"), "key": own.path("key.pem"), "tickets": "false",
          "passwordless_user": "kiosk", "novnc_directory": own.path("web"), "viewers": "1",
        ], more: "log:\n  level: error")
      try await Site.open(settings) { site in
        let status = try await site.ask(StatusAnswer.self, "status")
        let (vnc, web) = (try await site.port("vnc"), try await site.port("https"))
        #expect(status.addresses == ["vnc://127.0.0.2:\(vnc)", "https://127.0.0.3:\(web)/"])
        let fingerprint = try Self.fingerprint(of: own.path("cert.pem"), in: own)
        #expect(status.fingerprint == fingerprint)
        let (_, shown) = try own.run(
          """
          openssl s_client -connect 127.0.0.3:\(web) </dev/null 2>/dev/null | \
            openssl x509 -noout -fingerprint -sha256
          curl --silent --insecure https://127.0.0.3:\(web)/vnc.html
          """)
        #expect(shown.contains(fingerprint))
        #expect(shown.contains("our own page"))

        try await site.furnish(for: "kiosk")
        try await site.settle()
        let viewer = try Viewer(port: vnc, at: "127.0.0.2")
        #expect(try await viewer.offeredTypes() == [19, 1])
        try await viewer.logInWithoutPassword()
        try await eventually("kiosk is connected") {
          try await site.session(of: "kiosk")?.state == "connected"
        }
        let second = try Viewer(port: vnc, at: "127.0.0.2")
        _ = try await second.offeredTypes()
        let refusal = await #expect(throws: SiteError.self) {
          try await second.logInWithoutPassword()
        }
        #expect(refusal?.description.contains("this host serves 1 viewers already") == true)
        #expect(!site.logged.contains(" info ") && !site.logged.contains(" notice "))
      }
    }

    @Test("sessions in clear from elsewhere are a choice", .needsOtherAddress)
    func clearText() async throws {
      let address = try #require(OtherAddress.first)
      let offers: [(String, [UInt8])] = [("false", [19]), ("true", [19, 2])]
      for (allowed, types) in offers {
        let gateway = ["listen": "[\"\(address):0\"]", "cleartext_sessions": allowed]
        try await Site.open(Site.Settings(gateway: gateway)) { site in
          let viewer = try Viewer(port: try await site.port("vnc"), at: address, from: address)
          #expect(try await viewer.offeredTypes() == types)
        }
      }
    }

    static let limits: Set = [
      "gateway.handshake_seconds", "gateway.login_seconds", "gateway.stall_seconds",
      "gateway.connections_before_login", "gateway.connections_before_login_per_address",
    ]

    @Test("how long programs, people and stalled viewers are waited for")
    func times() async throws {
      let gateway = ["handshake_seconds": "2", "login_seconds": "5", "stall_seconds": "1"]
      try await Site.open(Site.Settings(gateway: gateway)) { site in
        try await site.furnish()
        try await site.settle()
        let port = try await site.port("vnc")
        // So little that the display process gets rid of it, or it would drop the viewer
        // itself; and so much that carreld keeps some.
        let stalled = try await site.logIn(room: 4096)
        _ = try await stalled.screen()
        try stalled.request(lines: 64)
        try await eventually("the viewer that stalls is dropped", within: 30) {
          try await site.session(of: "alice")?.state == "disconnected"
        }
        #expect(site.logged.contains("it stopped reading"))

        let program = try Viewer(port: port)
        async let programTook = Self.duration { _ = await program.connection.takeRest() }
        async let personTook = Self.duration {
          let person = try Viewer(port: port)
          _ = try await person.offeredTypes()
          try await person.askForTicket()
          _ = await person.connection.takeRest()
        }
        let (short, long) = try await (programTook, personTook)
        #expect(short > .milliseconds(1000) && short < .seconds(15), "handshake_seconds: \(short)")
        #expect(long > .milliseconds(4000) && long < .seconds(30), "login_seconds: \(long)")
      }
    }

    @Test("how many may be at the door, in all and from one address")
    func crowds() async throws {
      let gateway = [
        "connections_before_login": "4", "connections_before_login_per_address": "2",
        "handshake_seconds": "60",
      ]
      try await Site.open(Site.Settings(gateway: gateway)) { site in
        let port = try await site.port("vnc")
        var open: [Connection] = []
        for (source, isWelcome) in [
          ("127.0.0.1", true), ("127.0.0.1", true), ("127.0.0.1", false), ("127.0.0.2", true),
          ("127.0.0.3", true), ("127.0.0.4", false),
        ] {
          let connection = try Connection(port: port, from: source)
          if isWelcome {
            #expect(try await connection.take(12) == Array("RFB 003.008\n".utf8))
          } else {
            #expect(await connection.takeRest().isEmpty)
          }
          open.append(connection)
        }
        #expect(site.logged.contains("2 connections from this address are logging in"))
        #expect(site.logged.contains("4 connections are logging in"))
      }
    }

    static let logins: Set = [
      "logins.failures", "logins.window_seconds", "logins.lockout_seconds",
      "logins.ticket_seconds",
    ]

    @Test("how often a password may be wrong, and for how long that counts")
    func logins() async throws {
      let settings = Site.Settings(
        more: """
          logins:
            failures: 2
            window_seconds: 4
            lockout_seconds: 9
            ticket_seconds: 77
          """)
      try await Site.open(settings) { site in
        for user in ["alice", "bob"] {
          let added = try await site.carrel(
            "user", "add", user, "--password-stdin", input: "christmas\n")
          #expect(added.isSuccess, "\(added.complaint)")
        }
        let web = try await site.port("http")
        func logIn(_ user: String, _ password: String) async throws -> String? {
          try await BrowserLogin(port: web).logIn(user, password)
        }
        let wrong = "The name or the password is wrong."
        #expect(try await logIn("bob", "easter") == wrong)
        let first = ContinuousClock.now
        #expect(try await logIn("alice", "easter") == wrong)
        let locked = ContinuousClock.now
        #expect(try await logIn("alice", "easter") == wrong)
        let refusal = try await logIn("alice", "christmas")
        #expect(refusal?.hasPrefix("Too many failed logins.") == true)

        // Bob's first failure does not count any more.
        try await Task.sleep(until: first + .milliseconds(4200), clock: .continuous)
        #expect(try await logIn("bob", "easter") == wrong)
        #expect(try await logIn("bob", "christmas") == nil)
        try await eventually("alice may try again") { try await logIn("alice", "christmas") == nil }
        #expect(ContinuousClock.now - locked > .seconds(8), "lockout_seconds is 9")

        let before = Date()
        let ticket = try await site.ask(TicketAnswer.self, "ticket", "alice")
        let style = Date.ISO8601FormatStyle(includingFractionalSeconds: true)
        let life = try style.parse(ticket.expires).timeIntervalSince(before)
        #expect((76...90).contains(life), "ticket_seconds is 77: \(life)")
      }
    }

    static let desktops: Set = [
      "state_directory", "runtime_directory", "programs.vmm", "programs.display",
      "desktops.stop_at_exit", "desktops.boots_at_once",
    ]

    @Test("how many desktops boot at once, of which users' own are none that wait")
    func boots() async throws {
      let settings = Site.Settings(more: "desktops:\n  boots_at_once: 1")
      try await Site.open(settings) { site in
        let made = try await site.carrel(
          "pool", "create", "lounge", "--image", try DemoDesktop.path(), "--size", "9", "--spares",
          "3", "--memory", "64M", "--no-wait")
        #expect(made.isSuccess, "\(made.complaint)")
        try await site.furnish()
        try await eventually("the last waits for its turn") {
          let shown = try await site.carrel("desktop", "show", "lounge-3", "--json").output
          return shown.contains("boot just now, and spares are started one after another")
        }
        let waiting = try await site.carrel("desktop", "start", "lounge-3", "--no-wait")
        #expect(waiting.isSuccess && waiting.output.contains("is off and waits: 1 desktop"))
        _ = try await site.logIn()
        try await site.settle()
        #expect(try await site.pool("lounge").desktops.clean == 3)
      }
    }

    @Test("where records and sockets are, which programs are started, and when desktops end")
    func desktops() async throws {
      let own = try TemporaryDirectory()
      var programs: [String: String] = [:]
      for (key, name) in [("vmm", "carrel-vmm"), ("display", "carrel-display")] {
        let script = "#!/bin/sh\necho >> \(own.path(key))\nexec \(Programs.built(name)) \"$@\"\n"
        try own.write(Array(script.utf8), to: name)
        programs[key] = own.path(name)
      }
      _ = try own.run("chmod +x carrel-vmm carrel-display")
      try await Site.open(Site.Settings(programs: programs), state: own.path("records")) { site in
        try await site.furnish()
        try await site.settle()
        #expect(Files.exists(own.path("records/carrel.db")))
        #expect(Files.exists(site.runtime + "/control.sock"))
        #expect(Files.exists(own.path("vmm")) && !Files.exists(own.path("display")))
        _ = try await site.logIn()
        #expect(Files.exists(own.path("display")))
        try await site.settle()
        let machines = site.machineNumbers

        try await site.stop()
        #expect(site.machineNumbers == machines)
        try site.configure(
          Site.Settings(programs: programs, more: "desktops:\n  stop_at_exit: true"))
        try await site.start()
        try await site.settle()
        #expect(site.machineNumbers == machines)
        try await site.stop()
        #expect(site.machines.isEmpty)
      }
    }

    @Test("the certificate that is issued is shown by 'carrel status', however little is logged")
    func fingerprint() async throws {
      try await Site.open(Site.Settings(more: "log:\n  level: critical")) { site in
        let fingerprint = try Self.fingerprint(
          of: site.state + "/gateway/certificate.pem", in: site.directory)
        #expect(try await site.ask(StatusAnswer.self, "status").fingerprint == fingerprint)
        let shown = try await site.carrel("status").output
        #expect(shown.contains("certificate, SHA-256: "))
        #expect(shown.contains(fingerprint))
      }
    }

    /// As openssl computes it.
    private static func fingerprint(
      of certificate: String, in directory: TemporaryDirectory
    ) throws -> String {
      let (status, output) = try directory.run(
        "openssl x509 -in \(certificate) -noout -fingerprint -sha256")
      guard status == 0, let equals = output.firstIndex(of: "=") else { throw SiteError(output) }
      return output[output.index(after: equals)...].trimmingCharacters(in: .whitespacesAndNewlines)
    }

    private static func duration(_ body: @Sendable () async throws -> Void) async throws -> Duration
    {
      let begin = ContinuousClock.now
      try await body()
      return ContinuousClock.now - begin
    }
  }
}
