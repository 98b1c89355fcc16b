import Brokering
import Gateway
import LinuxSystem
import Testing

@Suite("Browsers")
struct WebTests {
  @Test("noVNC's way in: VeNCrypt Plain over a websocket on loopback")
  func plain() async throws {
    try await withGateway { running in
      let browser = try await WebSocketClient(port: running.webPort)
      #expect(try await browser.logIn("béla", "magyarország") == nil)
      // A message may come in several frames.
      try browser.sendFrame([], isLast: false)
      try browser.sendFrame([1], opcode: 0)
      #expect(try await browser.take(StubDisplay.serverInit.count) == StubDisplay.serverInit)
      try browser.sendFrame([0x2A], opcode: 9)
      let pong = try await browser.takeFrame()
      #expect(pong.opcode == 10 && pong.payload == [0x2A])
      try browser.sendFrame([3, 0xE8], opcode: 8)
      let goodbye = try await browser.takeFrame()
      #expect(goodbye.opcode == 8 && goodbye.payload == [3, 0xE8])
      #expect(
        try await running.broker.departure(0).reason == "the viewer closed the connection")
    } configure: {
      $0.webTLS = false
    }
  }

  @Test("the subprotocol binary is confirmed, others are not served")
  func subprotocol() async throws {
    try await withGateway { running in
      let old = try await WebSocketClient(
        port: running.webPort, headers: ["Sec-WebSocket-Protocol: binary, base64"])
      #expect(old.head.lowercased().contains("sec-websocket-protocol: binary\r\n"))
      for headers in [
        ["Sec-WebSocket-Protocol: base64"], ["Origin: https://evil.example"],
      ] {
        await #expect(throws: (any Error).self) {
          _ = try await WebSocketClient(port: running.webPort, headers: headers)
        }
      }
      _ = try await WebSocketClient(
        port: running.webPort, headers: ["Origin: http://localhost:\(running.webPort)"])
      await #expect(throws: (any Error).self) {
        _ = try await WebSocketClient(port: running.webPort, path: "/elsewhere")
      }
    } configure: {
      $0.webTLS = false
    }
  }

  @Test("text is not RFB")
  func text() async throws {
    try await withGateway { running in
      let browser = try await WebSocketClient(port: running.webPort)
      _ = try await browser.take(12)
      try browser.sendFrame(Array("hello".utf8), opcode: 1)
      let goodbye = try await browser.takeFrame()
      #expect(goodbye.opcode == 8 && goodbye.payload == [3, 0xEB])
    } configure: {
      $0.webTLS = false
    }
  }

  @Test(
    "noVNC's files are served, and nothing beside them",
    arguments: [
      ("/", "302"), ("/vnc.html", "200"), ("/vnc.html?autoconnect=1", "200"),
      ("/core/rfb.js", "200"), ("/app/images/icons/novnc-16x16.png", "200"),
      ("/../../../etc/passwd", "404"), ("/core/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "404"),
      ("/core/", "404"), ("/websockify", "426"), ("//etc/passwd", "404"), ("/vnc.html%00", "404"),
    ])
  func files(target: String, status: String) async throws {
    try await withGateway { running in
      let browser = try RawClient(port: running.webPort)
      try browser.send("GET \(target) HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
      let answer = String(decoding: await browser.takeRest(), as: UTF8.self)
      #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(answer.prefix(40))")
      #expect(answer.contains("nosniff"))
      #expect(!answer.contains("root:"))
    } configure: {
      $0.webTLS = false
    }
  }
}
