import Brokering
import Gateway
import Testing

@Suite("Logging in through the gateway")
struct LoginTests {
  @Test("a ticket lets its viewer in, once, and RFB flows both ways")
  func ticket() async throws {
    try await withGateway { running in
      let viewer = try RawClient(port: running.port)
      try await viewer.logInByTicket()
      try viewer.send([1])
      #expect(try await viewer.take(StubDisplay.serverInit.count) == StubDisplay.serverInit)
      try viewer.send([3, 0, 0, 0, 0, 0, 0, 64, 0, 48])
      let update = try await viewer.take(16 + StubDisplay.width * StubDisplay.height * 4)
      #expect(update.last == 0x80)
      viewer.close()
      let gone = try await running.broker.departure(0)
      #expect(gone.reason == "the viewer closed the connection")
      _ = try await running.displays.process(0).wait { $0.hasEnded }

      let second = try RawClient(port: running.port)
      await #expect(throws: (any Error).self) { try await second.logInByTicket() }
    }
  }

  @Test("what the broker says reaches the display process, and its end the viewer")
  func control() async throws {
    try await withGateway { running in
      let viewer = try RawClient(port: running.port)
      try await viewer.logInByTicket()
      try viewer.send([1])
      let arrival = try await running.broker.arrival(0)
      #expect(arrival.login.peer.text == "127.0.0.1")
      arrival.viewer.setKeyboardLayout("de")
      arrival.viewer.detach()
      arrival.viewer.showStatus("One\nmoment", percent: nil)
      arrival.viewer.close(telling: "You logged in elsewhere.")
      arrival.viewer.showStatus("never sent", percent: 1)
      let display = try await running.displays.process(0)
      let messages = try await display.wait { $0.messages.count >= 7 }.messages
      #expect(
        messages == [
          "name desk of alice", "status 40 Starting your desktop",
          "attach /run/carrel/alice.display", "layout de", "detach", "status - One moment",
          "end You logged in elsewhere.",
        ])
      try display.control.send(Array("power reboot".utf8))
      try display.control.send(Array("closed told\nto\u{1B}[2J".utf8))
      try await blocking { running.broker.record.wait(until: { !$0.power.isEmpty }) { _ in } }
      display.endClient()
      _ = await viewer.takeRest()
      #expect(try await running.broker.departure(0).reason == "told to [2J")
      #expect(running.broker.record.withLock { $0.power } == [.reboot])
    }
  }

  @Test("a display process that dies takes its viewer along, and nobody else")
  func displayDies() async throws {
    try await withGateway { running in
      let viewer = try RawClient(port: running.port)
      try await viewer.logInByTicket()
      try viewer.send([1])
      _ = try await running.broker.arrival(0)
      try await running.displays.process(0).endClient()
      _ = await viewer.takeRest()
      #expect(try await running.broker.departure(0).reason == "the display process ended")
      let next = try RawClient(port: running.port)
      #expect(try await next.take(12).count == 12)
    }
  }

  @Test("without a password the configured user comes in, on loopback")
  func passwordless() async throws {
    try await withGateway { running in
      let viewer = try RawClient(port: running.port)
      _ = try await viewer.take(12)
      try viewer.send("RFB 003.003\n")
      #expect(try await viewer.take(4) == [0, 0, 0, 1])
      try viewer.send([1])
      _ = try await viewer.take(StubDisplay.serverInit.count)
      #expect(try await running.broker.arrival(0).login.user.rawValue == "guest")
    } configure: {
      $0.tickets = false
      $0.passwordlessUser = UserName(rawValue: "guest")
    }
  }

  @Test("a port in use, and a certificate that does not load, are named")
  func cannotStart() async throws {
    try await withGateway { running in
      let error = await #expect(throws: GatewayError.self) {
        _ = try await RunningGateway { $0.viewers = running.addresses.viewers }
      }
      #expect(error?.kind == .address)
      #expect(error?.description.contains(":\(running.port)") == true)
      let certificate = await #expect(throws: GatewayError.self) {
        _ = try await RunningGateway {
          $0.tls = .init(certificatePath: "/etc/hostname", keyPath: "/etc/hostname")
        }
      }
      #expect(certificate?.kind == .certificate)
      let site = await #expect(throws: GatewayError.self) {
        _ = try await RunningGateway { $0.noVNCDirectory = "/etc/apt" }
      }
      #expect(site?.description.contains("novnc") == true)
    }
  }
}
