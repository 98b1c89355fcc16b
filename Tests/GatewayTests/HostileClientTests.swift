import Gateway
import TestSupport
import Testing

@Suite("Clients that mean no good, or cannot do better")
struct HostileClientTests {
  @Test("wrong, disabled and unknown users, and expired tickets, are told why")
  func refusals() async throws {
    try await withGateway { running in
      for (ticket, reason) in [
        ("notright", "the ticket is unknown or expired"), ("", "the ticket is unknown or expired"),
      ] {
        let viewer = try RawClient(port: running.port)
        let error = await #expect(throws: (any Error).self) {
          try await viewer.logInByTicket(ticket)
        }
        #expect("\(error as Any)".contains(reason))
        #expect(await viewer.takeRest() == [])
      }
      for (user, password, reason) in [
        ("alice", "no", "wrong user name or password"),
        ("nobody", "no", "wrong user name or password"),
        ("carol", "christmas", "the account is disabled"),
      ] {
        let browser = try await WebSocketClient(port: running.webPort)
        #expect(try await browser.logIn(user, password) == reason)
      }
      #expect(running.displays.count == 0, "nobody got a display process")
    } configure: {
      $0.webTLS = false
    }
  }

  @Test("garbage is closed at once, without an answer")
  func garbage() async throws {
    try await withGateway { running in
      for bytes in [
        Array("GET / HTTP/1.1\r\nHost: x\r\n\r\n".utf8), [UInt8](repeating: 0xFF, count: 64),
        [0x16, 3, 1, 0, 200] + [UInt8](repeating: 1, count: 200),
      ] {
        let client = try RawClient(port: running.port)
        _ = try await client.take(12)
        try client.send(bytes)
        #expect(await client.takeRest() == [])
      }
    }
  }

  @Test("oversized input is refused with the reason, and not kept")
  func oversized() async throws {
    try await withGateway { running in
      let browser = try await WebSocketClient(port: running.webPort)
      try await browser.negotiatePlain()
      try browser.sendFrame([0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 1])
      #expect(try await browser.takeRefusal().contains("too long"))

      let flood = try RawClient(port: running.port)
      _ = try await flood.take(12)
      try? flood.send([UInt8](repeating: 0, count: 1 << 20))
      #expect(await flood.takeRest() == [])
    } configure: {
      $0.webTLS = false
    }
  }

  @Test("slow handshakes end at the limit, wherever they stop and however they drip")
  func slow() async throws {
    try await withGateway { running in
      let clock = ContinuousClock()
      for prefix in ["", "RFB 003", "RFB 003.008\n"] {
        let client = try RawClient(port: running.port)
        try client.send(prefix)
        let time = await clock.measure { _ = await client.takeRest() }
        #expect(time < .seconds(10))
      }
      // One byte now and then does not buy more time.
      let dripping = try RawClient(port: running.port)
      _ = try await dripping.take(12)
      let drip = Task {
        for byte in Array("RFB 003.008".utf8) {
          try? dripping.send([byte])
          try? await Task.sleep(for: .milliseconds(100))
        }
      }
      #expect(await dripping.takeRest() == [])
      drip.cancel()

      let browser = try RawClient(port: running.webPort)
      try browser.send("GET /vnc.html HT")
      #expect(await browser.takeRest() == [])
    } configure: {
      $0.limits.handshake = .milliseconds(400)
      $0.webTLS = false
    }
  }

  @Test(
    "dripping into TLS, or inside it, does not buy time either", .needs("python3"),
    arguments: [
      ("vencrypt", "hello", 3), ("vencrypt", "inside", 6), ("https", "hello", 3),
      ("https", "inside", 3),
    ])
  func dripping(kind: String, place: String, limit: Double) async throws {
    try await withGateway { running in
      let port = kind == "https" ? running.webPort : running.port
      let client = try LoggedProcess(
        HostFacilities.executable("python3") ?? "",
        [Programs.repository + "/Tests/Tools/drip-tls.py", kind, place, "\(port)"])
      #expect(try await blocking { try client.wait() } == .exited(0), "\(client.text)")
      let seconds = try #require(Double(client.text.filter { !$0.isNewline }))
      #expect(seconds > limit / 2 && seconds < limit + 15)
    } configure: {
      $0.limits.handshake = .seconds(3)
      $0.limits.person = .seconds(6)
    }
  }

  @Test("a person may take longer than a program, but not for ever")
  func person() async throws {
    try await withGateway { running in
      let client = try RawClient(port: running.port)
      _ = try await client.take(12)
      try client.send("RFB 003.008\n")
      _ = try await client.take(3)
      try client.send([2])
      _ = try await client.take(16)
      let time = await ContinuousClock().measure {
        #expect(await client.takeRest().prefix(4) == [0, 0, 0, 1])
      }
      #expect(time > .milliseconds(600))
      #expect(time < .seconds(5))
    } configure: {
      $0.limits.handshake = .milliseconds(200)
      $0.limits.person = .milliseconds(700)
    }
  }

  @Test("one address cannot take all the places, and gets them back")
  func flood() async throws {
    try await withGateway { running in
      var clients: [RawClient] = []
      for _ in 0..<4 {
        let client = try RawClient(port: running.port)
        _ = try await client.take(12)
        clients.append(client)
      }
      let fifth = try RawClient(port: running.port)
      #expect(await fifth.takeRest() == [])
      // A login gives its place free.
      let challenge = try await clients[0].chooseTicket()
      try clients[0].answer(challenge, "sesame23")
      #expect(try await clients[0].take(4) == [0, 0, 0, 0])
      let sixth = try RawClient(port: running.port)
      #expect(try await sixth.take(12).count == 12)
    } configure: {
      $0.limits.strangersPerPeer = 4
    }
  }

  @Test("garbage takes a place until it is closed, and nobody else's")
  func garbageAndPlaces() async throws {
    try await withGateway { running in
      var guests: [RawClient] = []
      for _ in 0..<3 { guests.append(try await running.guest()) }
      for _ in 0..<2 {
        let client = try await running.guest()
        try client.send([UInt8](repeating: 0xFF, count: 64))
        #expect(await client.takeRest() == [])
      }
      guests.append(try await running.guest())
      for _ in 0..<2 {
        let beyond = try RawClient(port: running.port)
        #expect(await beyond.takeRest() == [], "all four places are taken")
      }
    } configure: {
      $0.limits.strangersPerPeer = 4
      $0.limits.linger = .milliseconds(20)
    }
  }

  @Test("a viewer that stops reading is shed, and others do not notice")
  func stalled() async throws {
    try await withGateway(displays: StubDisplay(.floods)) { running in
      let lazy = try RawClient(port: running.port, receiveBuffer: 4096)
      try await lazy.logInByTicket()
      try lazy.send([1])
      _ = try await running.broker.arrival(0)
      running.broker.record.withLock { $0.ticket = "another7" }
      let busy = try RawClient(port: running.port)
      try await busy.logInByTicket("another7")
      try busy.send([1])
      let reader = Task {
        var total = 0
        while let bytes = try? await busy.take(65536) { total += bytes.count }
        return total
      }
      let gone = try await running.broker.departure(0)
      #expect(gone.id.value == 1)
      #expect(gone.reason == "it stopped reading")
      _ = try await running.displays.process(0).wait { $0.hasEnded }
      #expect(running.broker.record.withLock { $0.left.count } == 1)
      busy.close()
      #expect(await reader.value > 1 << 20)
    } configure: {
      $0.limits.stall = .milliseconds(500)
    }
  }

  @Test("a display process that does not start, or hangs, is told as such")
  func noDisplay() async throws {
    for behaviour in [StubDisplay.Behaviour.doesNotStart, .hangs] {
      try await withGateway(displays: StubDisplay(behaviour)) { running in
        let viewer = try RawClient(port: running.port)
        let error = await #expect(throws: (any Error).self) { try await viewer.logInByTicket() }
        #expect("\(error as Any)".contains("the screen could not be started"))
        #expect(running.broker.record.withLock { $0.arrived.isEmpty })
      } configure: {
        $0.limits.display = .milliseconds(300)
      }
    }
  }
}

extension RunningGateway {
  /// A client that was greeted: it holds a place. One that was given free a moment ago
  /// may take another moment to be offered.
  fileprivate func guest() async throws -> RawClient {
    var attempts = 0
    while true {
      let client = try RawClient(port: port)
      attempts += 1
      do {
        _ = try await client.take(12)
        return client
      } catch  where attempts < 200 {
        await Task.yield()
      }
    }
  }
}
