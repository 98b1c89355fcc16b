import TestSupport
import Testing

extension EndToEnd {
  @Suite("A viewer that cannot come in, or does not behave")
  struct BadLoginTests {
    @Test("passwords, accounts and tickets that are not good are told why, and change nothing")
    func refusals() async throws {
      try await Site.open { site in
        for user in ["alice", "carol"] {
          let added = try await site.carrel(
            "user", "add", user, "--password-stdin", input: "christmas\n")
          #expect(added.isSuccess, "\(added.complaint)")
        }
        #expect(try await site.carrel("user", "disable", "carol").isSuccess)
        let web = try await site.port("http")
        for (user, password, reason) in [
          ("alice", "easter", "The name or the password is wrong."),
          ("nobody", "christmas", "The name or the password is wrong."),
          ("carol", "christmas", "Your account is disabled."),
        ] {
          #expect(try await BrowserLogin(port: web).logIn(user, password) == reason)
        }
        let port = try await site.port("vnc")
        let reason = "The ticket is wrong, used or expired."
        _ = try await site.ask(TicketAnswer.self, "ticket", "alice")
        #expect(try await Viewer(port: port).answer(ticket: "notright") == reason)
        let used = try await site.ask(TicketAnswer.self, "ticket", "alice").ticket
        #expect(try await Viewer(port: port).answer(ticket: used) == nil)
        #expect(try await Viewer(port: port).answer(ticket: used) == reason)
        let short = try await site.ask(TicketAnswer.self, "ticket", "alice", "--seconds", "1")
        try await Task.sleep(for: .milliseconds(1100))
        #expect(try await Viewer(port: port).answer(ticket: short.ticket) == reason)
        #expect(try await site.session(of: "alice") == nil)
        let reasons = try await site.reasons(for: "alice")
        #expect(reasons.contains("login-refused-password"))
      }
    }

    @Test("garbage, floods and dawdlers are dropped while others work on")
    func hostile() async throws {
      try await Site.open(Site.Settings(gateway: ["handshake_seconds": "2"])) { site in
        try await site.furnish()
        try await site.settle()
        let viewer = try await site.logIn()
        let port = try await site.port("vnc")
        let begin = ContinuousClock.now
        let dawdler = try Connection(port: port)
        try dawdler.send("RFB 003.")
        for bytes in [
          Array("GET / HTTP/1.1\r\n\r\n".utf8), [UInt8](repeating: 0xFF, count: 64),
          [UInt8](repeating: 0, count: 1 << 20),
        ] {
          let client = try Connection(port: port)
          _ = try await client.take(12)
          try? client.send(bytes)
          #expect(await client.takeRest().isEmpty)
        }
        _ = try await viewer.screen()
        _ = await dawdler.takeRest()
        let waited = ContinuousClock.now - begin
        #expect(waited > .seconds(1) && waited < .seconds(30), "the limit is 2 s: \(waited)")
        #expect(try await site.session(of: "alice")?.state == "connected")
      }
    }

    @Test("a viewer that stops reading is dropped; another is served all the while")
    func stalled() async throws {
      try await Site.open { site in
        try await site.furnish()
        try await site.furnish(for: "bob")
        try await site.settle()
        let stalled = try await site.logIn("alice")
        let other = try await site.logIn("bob")
        // A screen is megabytes, more than the sockets on the way hold.
        for _ in 0..<64 { try stalled.request() }
        var slowest = Duration.zero
        try await eventually("the viewer that stalls is dropped", within: 15) {
          let begin = ContinuousClock.now
          _ = try await other.screen()
          slowest = max(slowest, ContinuousClock.now - begin)
          return try await site.session(of: "alice")?.state == "disconnected"
        }
        #expect(slowest < .seconds(2))
        #expect(try await site.session(of: "bob")?.state == "connected")
        #expect(try await site.desktops.filter { $0.owner != nil }.count == 2)
      }
    }
  }
}
