import Gateway
import NIOCore
import NIOEmbedded
import NIOWebSocket
import Testing

@Suite("Browsers that mean no good")
struct HostileBrowserTests {
  @Test("one that asks and asks without reading is cut, and little of it is taken in")
  func pipelined() async throws {
    try await withGateway { running in
      let browser = try RawClient(port: running.webPort, receiveBuffer: 4096)
      let request = Array("HEAD /vnc.html HTTP/1.1\r\nHost: x\r\n\r\n".utf8)
      let requests = Array(repeatElement(request, count: 1000).joined())
      // More than the kernel keeps for both sides.
      let most = 24 << 20
      let sent = try await blocking {
        var sent = 0
        while sent < most, (try? browser.send(requests)) != nil { sent += requests.count }
        return sent
      }
      #expect(sent < most, "the gateway took in \(sent) bytes for which nobody read the answers")
    } configure: {
      $0.webTLS = false
      $0.limits.handshake = .milliseconds(500)
    }
  }

  @Test("one that does not read its page is cut at the limit")
  func unreadPage() async throws {
    try await withGateway { running in
      let browser = try RawClient(port: running.webPort, receiveBuffer: 4096)
      let request = "GET /core/rfb.js HTTP/1.1\r\nHost: x\r\n\r\n"
      try browser.send(String(repeating: request, count: 100))
      // Its place is given free.
      let other = try await blocking {
        while true {
          let other = try RawClient(port: running.webPort)
          try other.send("GET / HTTP/1.0\r\n\r\n")
          if !other.nextBytes().isEmpty { return true }
        }
      }
      #expect(other)
    } configure: {
      $0.webTLS = false
      $0.limits.strangersPerPeer = 1
      $0.limits.handshake = .milliseconds(500)
    }
  }

  @Test("pages that are asked for at once all come, whole and in order")
  func inOrder() async throws {
    try await withGateway { running in
      let browser = try RawClient(port: running.webPort)
      let names = ["/core/rfb.js", "/vnc.html", "/nowhere", "/core/rfb.js"]
      try browser.send(
        names.map { "GET \($0) HTTP/1.1\r\nHost: x\r\n\r\n" }.joined()
          + "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
      var answers: [String] = []
      var pages: [[UInt8]] = []
      for _ in 0..<5 {
        let head = try await browser.takeHead()
        answers.append(String(head.dropFirst("HTTP/1.1 ".count).prefix(3)))
        pages.append(try await browser.take(contentLength(of: head)))
      }
      #expect(answers == ["200", "200", "404", "200", "302"])
      #expect(pages[0].count > 64 << 10, "longer than one portion")
      #expect(pages[0] == pages[3])
      #expect(await browser.takeRest() == [])
    } configure: {
      $0.webTLS = false
    }
  }

  @Test("of pings that come while nothing can be sent only the last is answered")
  func pings() async throws {
    let channel = NIOAsyncTestingChannel()
    try await channel.testingEventLoop.executeInContext {
      try channel.pipeline.syncOperations.addHandler(WebSocketBytes())
    }
    func ping(_ payload: UInt8) async throws {
      let data = ByteBuffer(bytes: [payload])
      try await channel.writeInbound(WebSocketFrame(fin: true, opcode: .ping, data: data))
    }
    func pong() async throws -> [UInt8]? {
      try await channel.readOutbound(as: WebSocketFrame.self).map {
        Array($0.data.readableBytesView)
      }
    }
    try await ping(1)
    #expect(try await pong() == [1])
    try await channel.setWritable(false)
    for payload in UInt8(2)...200 { try await ping(payload) }
    #expect(try await pong() == nil)
    try await channel.setWritable(true)
    #expect(try await pong() == [200])
    #expect(try await pong() == nil)
  }

  private func contentLength(of head: String) -> Int {
    let line = head.lowercased().split(separator: "\r\n").first {
      $0.hasPrefix("content-length: ")
    }
    return line.flatMap { Int($0.dropFirst("content-length: ".count)) } ?? 0
  }
}

extension NIOAsyncTestingChannel {
  fileprivate func setWritable(_ isWritable: Bool) async throws {
    self.isWritable = isWritable
    try await testingEventLoop.executeInContext { self.pipeline.fireChannelWritabilityChanged() }
  }
}
