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
}
