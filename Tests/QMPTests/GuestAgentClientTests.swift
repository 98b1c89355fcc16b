import Foundation
import QMP
import TestSupport
import Testing

@Suite("Guest agent client")
struct GuestAgentClientTests {
  private let sync: [UInt8] = [0xFF] + Array("{\"return\": 77}\n".utf8)

  private func client(
    _ command: GuestAgentCommand = .ping, limit: Int = 4096
  ) -> GuestAgentClient {
    GuestAgentClient(asking: command, token: 77, limit: limit)
  }

  /// One that has found an agent.
  private func synchronised(
    _ command: GuestAgentCommand = .ping, limit: Int = 4096
  ) -> GuestAgentClient {
    var client = client(command, limit: limit)
    _ = client.pendingOutput()
    _ = client.receive(sync)
    return client
  }

  private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

  @Test("it asks who is there, and its question only when that is answered")
  func conversation() {
    var client = client(.freezeStatus)
    let greeting = client.pendingOutput()
    #expect(greeting.first == 0xFF)
    #expect(
      text(Array(greeting.dropFirst()))
        == "{\"arguments\": {\"id\": 77}, \"execute\": \"guest-sync-delimited\"}\n")
    let nothing = client.pendingOutput()
    #expect(nothing.isEmpty)
    let found = client.receive(sync)
    #expect(found == [.synchronised])
    let question = client.pendingOutput()
    #expect(text(question) == "{\"execute\": \"guest-fsfreeze-status\"}\n")
    let answer = client.receive(Array("{\"return\": \"thawed\"}\n".utf8))
    #expect(answer == [.answer(.success("thawed"))])
    let late = client.receive(Array("{\"return\": \"frozen\"}\n".utf8))
    #expect(late.isEmpty, "there is one answer")
  }

  @Test(
    "what is there for others is passed over, whatever it is",
    arguments: [
      "{\"return\": {}}\n{\"return\": 77}\n", "{\"error\": {\"class\": \"GenericError\"",
      "@{\"return\": 76}\n{\"return\": {}}\n", "@@{\"return\": [{\"a\": @", "@garbage\n",
      "@{\"return\": \"77\"}\n",
    ], [1, 3, 4096])
  func stale(others: String, piece: Int) {
    var client = client()
    _ = client.pendingOutput()
    let bytes = others.utf8.map { $0 == UInt8(ascii: "@") ? 0xFF : $0 } + sync
    var messages: [GuestAgentClient.Message] = []
    for start in stride(from: 0, to: bytes.count, by: piece) {
      messages += client.receive(Array(bytes[start..<min(start + piece, bytes.count)]))
    }
    #expect(messages == [.synchronised])
    let question = client.pendingOutput()
    #expect(text(question) == "{\"execute\": \"guest-ping\"}\n")
  }

  @Test("a guest that talks without end to nobody is given up")
  func endless() {
    var client = client()
    let flood = [UInt8](repeating: UInt8(ascii: "x"), count: 1 << 16)
    var messages: [GuestAgentClient.Message] = []
    for _ in 0..<64 { messages += client.receive(flood) }
    #expect(messages == [.protocolViolation("it sent more than 1024 KiB for nobody")])
    var second = self.client()
    messages = []
    for _ in 0..<64 { messages += second.receive([UInt8](repeating: 0xFF, count: 1 << 16)) }
    #expect(messages == [.protocolViolation("it sent more than 1024 KiB for nobody")])
  }

  @Test(
    "an answer that is none is a violation, and the last thing that is heard",
    arguments: [
      ("SSH-2.0\n", "bytes that are no JSON"), ("{\"id\": 1}\n", "neither a result nor an error"),
      ("{\"return\": }\n", "an answer that is no JSON: JSON parse error"),
      (
        "{\"return\": " + String(repeating: "[", count: 100) + String(repeating: "]", count: 100)
          + "}\n", "nesting too deep"
      ),
      ("{\"return\": \"" + String(repeating: "x", count: 5000), "more than 4 KiB in one answer"),
    ])
  func violations(answer: String, problem: String) throws {
    var client = synchronised()
    let messages = client.receive(Array(answer.utf8))
    guard case .protocolViolation(let text) = try #require(messages.first) else {
      Issue.record("no violation in \(messages)")
      return
    }
    #expect(messages.count == 1)
    #expect(text.contains(problem))
    let later = client.receive(Array("\n{\"return\": {}}\n".utf8))
    #expect(later.isEmpty)
  }

  @Test("an error is told in the agent's words, without what would steer a terminal")
  func errors() {
    var client = synchronised()
    let messages = client.receive(
      Array(
        "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no \\u001b[2Jsuch\\u202e\"}}\n"
          .utf8))
    #expect(
      messages == [.answer(.failure(QMPError(.commandNotFound, "no \u{FFFD}[2Jsuch\u{FFFD}")))])
    #expect(GuestText.clean(String(repeating: "é", count: 10_000)).count == 512)
  }

  @Test("a shutdown has worked when the question behind it is answered first")
  func shutdown() {
    var client = synchronised(.shutdown(.reboot))
    let question = client.pendingOutput()
    #expect(
      text(question)
        == "{\"arguments\": {\"mode\": \"reboot\"}, \"execute\": \"guest-shutdown\"}\n"
        + "{\"execute\": \"guest-ping\"}\n")
    let done = client.receive(Array("{\"return\": {}}\n".utf8))
    #expect(done == [.answer(.success([:]))])

    var refused = synchronised(.shutdown(.halt))
    let refusal = refused.receive(
      Array("{\"error\": {\"desc\": \"disabled\"}}\n{\"return\": {}}\n".utf8))
    #expect(refusal == [.answer(.failure(QMPError(.generic, "disabled")))])
  }

  @Test("commands carry their arguments")
  func arguments() throws {
    var password = synchronised(.setPassword(user: "root", password: Array("pässword".utf8)))
    let bytes = password.pendingOutput()
    let sent = try JSON(parsing: bytes)
    #expect(
      sent["arguments"] == ["username": "root", "password": "cMOkc3N3b3Jk", "crypted": false])
    let program = GuestAgentCommand.Program(
      path: "cat", arguments: ["-n", "\"\n"], input: Array("hello".utf8))
    var execution = synchronised(.execute(program))
    let line = execution.pendingOutput()
    #expect(line.count { $0 == 0x0A } == 1, "an argument breaks no line")
    #expect(
      try JSON(parsing: line)["arguments"] == [
        "path": "cat", "arg": ["-n", "\"\n"], "capture-output": true, "input-data": "aGVsbG8=",
      ])
  }

  @Test("answers of another kind are not taken for the one that was asked for")
  func otherAnswers() throws {
    #expect(GuestAgentAnswers.isFrozen("melting") == nil)
    #expect(GuestAgentAnswers.count(-1) == nil)
    #expect(GuestAgentAnswers.info([:]) == nil)
    #expect(GuestAgentAnswers.interfaces([:]) == nil)
    #expect(GuestAgentAnswers.process(["pid": "1"]) == nil)
    #expect(GuestAgentAnswers.execution(["exited": true, "out-data": "*"]) == nil)
    let many = JSON.array(Array(repeating: ["name": "eth0\u{7}"], count: 5000))
    let interfaces = try #require(GuestAgentAnswers.interfaces(many))
    #expect(interfaces.count == 256)
    #expect(interfaces.first?.name == "eth0\u{FFFD}")
    let running = try #require(GuestAgentAnswers.execution(["exited": false, "exitcode": 0]))
    #expect(running.status == nil)
  }

  @Test(
    "base64 is RFC 4648's",
    arguments: [
      ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="),
      ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy"),
    ])
  func base64(plain: String, encoded: String) {
    #expect(Base64.encode(Array(plain.utf8)) == encoded)
    #expect(Base64.decode(encoded) == Array(plain.utf8))
  }

  @Test(
    "what is no base64 is refused",
    arguments: ["Z", "Zg=", "Zh==", "=Zg=", "Z===", "Zm9vZg==Zm9v", "Zm9 ", "Zm9\u{E9}", "===="])
  func noBase64(text: String) {
    #expect(Base64.decode(text) == nil)
  }

  @Test("base64 returns every byte, as Foundation encodes it")
  func base64OfAll() {
    for count in 0..<300 {
      let bytes = (0..<count).map { _ in UInt8.random(in: 0...255) }
      let encoded = Base64.encode(bytes)
      #expect(encoded == Data(bytes).base64EncodedString())
      #expect(Base64.decode(encoded) == bytes)
    }
  }
}

@Suite("Fuzzing the guest agent client")
struct GuestAgentFuzzingTests {
  private static let corpus = "\(Programs.repository)/Tests/Fuzz/Corpus/guest-agent"

  @Test("what the fuzz target starts from passes, and so does what is like it")
  func corpus() throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: Self.corpus)
    #expect(names.count >= 8)
    for name in names {
      let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(Self.corpus)/\(name)")))
      #expect(GuestAgentFuzzing.run(bytes), "\(name)")
      for _ in 0..<300 {
        var changed = bytes
        for _ in 0..<Int.random(in: 1...4) {
          changed[Int.random(in: 0..<changed.count)] =
            Array("\u{7F}{}[]\",:\n0".utf8).randomElement() ?? 0
        }
        changed[Int.random(in: 0..<changed.count)] = .random(in: 0...255)
        #expect(GuestAgentFuzzing.run(changed), "\(changed)")
      }
    }
  }
}
