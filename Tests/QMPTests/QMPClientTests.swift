import QMP
import Testing

@Suite("QMP client")
struct QMPClientTests {
  let machine = FakeQMPMachine()

  /// Passes everything that is due both ways.
  func exchange(_ client: inout QMPClient, _ session: inout QMPSession) -> [QMPClient.Message] {
    var messages: [QMPClient.Message] = []
    while true {
      let output = client.pendingOutput()
      if output.isEmpty { return messages }
      messages += client.receive(session.receive(output, machine: machine))
    }
  }

  @Test("it negotiates with the server, then gets results and events")
  func conversation() {
    var client = QMPClient()
    var session = QMPSession()
    let early = client.command("query-name")
    let tooEarly = client.pendingOutput()
    #expect(tooEarly == [])
    _ = client.receive(session.greeting(of: machine))
    let first = exchange(&client, &session)
    #expect(first == [.ready, .result(identifier: early, .success(["name": "desk-7"]))])
    let bad = client.command("screendump", ["filename": 1])
    let good = client.command("stop")
    let second = exchange(&client, &session)
    let error = QMPError(.generic, "Invalid parameter type for 'filename', expected: string")
    #expect(
      second == [
        .result(identifier: bad, .failure(error)), .result(identifier: good, .success([:])),
      ])
    let third = client.receive(
      session.event(.reset(byGuest: true, reason: "guest-reset"), seconds: 1, microseconds: 2))
    #expect(
      third == [
        .event(
          name: "RESET", data: ["guest": true, "reason": "guest-reset"], seconds: 1,
          microseconds: 2)
      ])
  }

  @Test(
    "a peer that does not speak QMP is given up",
    arguments: [
      "SSH-2.0\n", "{}", "{\"QMP\":{}}{\"error\":{}}",
      "{\"QMP\":{}}{\"return\":{}}{\"return\":{}}",
    ])
  func violations(text: String) throws {
    var client = QMPClient()
    let messages = client.receive(Array(text.utf8))
    guard case .protocolViolation = try #require(messages.last) else {
      Issue.record("no violation in \(messages)")
      return
    }
    let later = client.receive(Array("{\"QMP\":{}}".utf8))
    #expect(later == [])
  }
}
