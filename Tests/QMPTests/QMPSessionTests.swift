import QMP
import Testing

@Suite("QMP server")
struct QMPSessionTests {
  let machine = FakeQMPMachine()

  /// A session after negotiation.
  func negotiated() -> QMPSession {
    var session = QMPSession()
    _ = session.receive(Array(#"{"execute":"qmp_capabilities"}"#.utf8), machine: machine)
    return session
  }

  /// The replies to some input, parsed.
  func replies(_ session: inout QMPSession, _ text: String) throws -> [JSON] {
    let bytes = session.receive(Array(text.utf8), machine: machine)
    return try bytes.split(separator: 0x0A).map { try JSON(parsing: Array($0)) }
  }

  func reply(_ text: String) throws -> JSON {
    var session = negotiated()
    return try #require(try replies(&session, text).first)
  }

  func problem(_ text: String) throws -> String {
    let error = try #require(try reply(text)["error"])
    return (error["class"]?.text ?? "") + ": " + (error["desc"]?.text ?? "")
  }

  @Test("the greeting names version and capabilities")
  func greeting() throws {
    let greeting = try JSON(parsing: QMPSession().greeting(of: machine))
    #expect(greeting["QMP"]?["version"]?["qemu"] == ["major": 1, "minor": 2, "micro": 3])
    #expect(greeting["QMP"]?["capabilities"] == [])
  }

  @Test("commands wait for the negotiation, which happens once")
  func negotiation() throws {
    var session = QMPSession()
    let early = try replies(&session, #"{"execute":"query-status","id":1}"#)
    #expect(early[0]["error"]?["class"] == "CommandNotFound")
    #expect(early[0]["id"] == 1)
    #expect(session.event(.stop, seconds: 1, microseconds: 2).isEmpty)
    let bad = try replies(
      &session, #"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#)
    #expect(bad[0]["error"]?["class"] == "GenericError")
    let good = try replies(
      &session, #"{"execute":"qmp_capabilities","arguments":{"enable":[]}}"#)
    #expect(good == [["return": [:]]])
    let again = try replies(&session, #"{"execute":"qmp_capabilities"}"#)
    #expect(again[0]["error"]?["class"] == "CommandNotFound")
  }

  @Test("the id comes back whatever it is", arguments: ["7", "\"x\"", "{\"a\":[1]}", "null"])
  func identifiers(id: String) throws {
    let answer = try reply("{\"execute\":\"query-name\",\"id\":\(id)}")
    let parsed = try JSON(parsing: Array(id.utf8))
    #expect(answer["id"] == parsed)
    #expect(answer["return"] == ["name": "desk-7"])
    #expect(try reply(#"{"execute":"query-name"}"#)["id"] == nil)
  }

  @Test("states are reported", arguments: QMPRunState.allCases)
  func status(state: QMPRunState) throws {
    machine.runState = state
    let answer = try reply(#"{"execute":"query-status"}"#)
    #expect(answer["return"]?["status"] == .string(state.rawValue))
    #expect(answer["return"]?["running"] == .bool(state == .running))
  }

  @Test("every listed command exists, and no other")
  func commands() throws {
    let list = try #require(try reply(#"{"execute":"query-commands"}"#)["return"]?.elements)
    let names = list.compactMap { $0["name"]?.text }
    let required = [
      "qmp_capabilities", "query-version", "query-status", "query-commands", "stop", "cont",
      "system_reset", "system_powerdown", "quit", "screendump", "send-key", "input-send-event",
      "human-monitor-command", "query-cpus-fast", "query-block", "inject-nmi", "eject",
      "blockdev-change-medium",
    ]
    #expect(Set(required).isSubset(of: names))
    for name in names where name != "qmp_capabilities" {
      let answer = try reply("{\"execute\":\"\(name)\"}")
      #expect(answer["error"]?["class"] != "CommandNotFound")
    }
    #expect(
      try problem(#"{"execute":"nonsense"}"#)
        == "CommandNotFound: The command nonsense has not been found")
  }

  @Test("lifecycle commands reach the machine in order")
  func lifecycle() throws {
    var session = negotiated()
    let text = [
      "stop", "cont", "system_reset", "system_powerdown", "carrel-sleep-button", "quit",
    ].map { "{\"execute\":\"\($0)\"}" }.joined()
    let answers = try replies(&session, text)
    #expect(answers == Array(repeating: ["return": [:]], count: 6))
    #expect(
      machine.calls == ["stop", "resume", "reset", "power button", "sleep button", "quit"])
  }

  @Test("a failing machine's reason reaches the client")
  func failure() throws {
    machine.failure = QMPError(.generic, "the machine is shut down")
    #expect(try problem(#"{"execute":"cont"}"#) == "GenericError: the machine is shut down")
  }

  @Test("screendump takes a file name and a format")
  func screendump() throws {
    func dump(_ arguments: String) -> String {
      "{\"execute\":\"screendump\",\"arguments\":\(arguments)}"
    }
    _ = try reply(dump(#"{"filename":"/tmp/a.ppm"}"#))
    _ = try reply(dump(#"{"filename":"/tmp/a.png","format":"png"}"#))
    #expect(machine.calls == ["screendump /tmp/a.ppm ppm", "screendump /tmp/a.png png"])
    #expect(try problem(dump("{}")) == "GenericError: Parameter 'filename' is missing")
    #expect(
      try problem(dump(#"{"filename":1}"#))
        == "GenericError: Invalid parameter type for 'filename', expected: string")
    #expect(
      try problem(dump(#"{"filename":"a","head":0}"#))
        == "GenericError: 'head' must be specified together with 'device'")
    #expect(try problem(dump(#"{"filename":"a","device":"video0","head":1}"#)).contains("head 1"))
    #expect(try problem(dump(#"{"filename":"a","device":7}"#)).contains("'device'"))
    #expect(machine.calls.count == 2)
    _ = try reply(dump(#"{"filename":"b","device":"video0","head":0}"#))
    _ = try reply(dump(#"{"filename":"c","device":"video0"}"#))
    #expect(machine.calls.suffix(2) == ["screendump b ppm", "screendump c ppm"])
    #expect(
      try problem(dump(#"{"filename":"a","depth":0}"#))
        == "GenericError: Parameter 'depth' is unexpected")
    #expect(try problem(dump(#"{"filename":"a","format":"gif"}"#)).contains("'gif'"))
  }

  @Test("send-key presses names and numbers together")
  func sendKey() throws {
    func send(_ arguments: String) -> String {
      "{\"execute\":\"send-key\",\"arguments\":{\(arguments)}}"
    }
    _ = try reply(
      send(
        #"""
        "keys":[{"type":"qcode","data":"ctrl"},{"type":"qcode","data":"alt"},
        {"type":"qcode","data":"delete"}]
        """#))
    _ = try reply(send(#""hold-time":20,"keys":[{"type":"number","data":156}]"#))
    #expect(machine.calls == ["press 1d+38+e053 100", "press e01c 20"])
    for bad in [
      #"[{"type":"qcode","data":"nokey"}]"#, #"[{"type":"number","data":0}]"#,
      #"[{"type":"number","data":99999999999}]"#, #"[{"type":"x","data":1}]"#, #"[1]"#, #"{}"#,
    ] {
      #expect(try reply(send("\"keys\":\(bad)"))["error"] != nil)
    }
    #expect(try reply(send(#""keys":[],"hold-time":-1"#))["error"] != nil)
    #expect(machine.calls.count == 2)
  }

  func inputCommand(_ events: String) -> String {
    "{\"execute\":\"input-send-event\",\"arguments\":{\"events\":[\(events)]}}"
  }

  @Test("axes of one command become one position; buttons and wheel keep their order")
  func input() throws {
    var session = negotiated()
    let commands = [
      #"{"type":"abs","data":{"axis":"x","value":16384}},"#
        + #"{"type":"abs","data":{"axis":"y","value":32767}},"#
        + #"{"type":"btn","data":{"down":true,"button":"left"}}"#,
      #"{"type":"btn","data":{"down":false,"button":"left"}}"#,
      #"{"type":"rel","data":{"axis":"x","value":-3}},"#
        + #"{"type":"rel","data":{"axis":"y","value":5}},"#
        + #"{"type":"btn","data":{"down":true,"button":"wheel-up"}},"#
        + #"{"type":"btn","data":{"down":false,"button":"wheel-up"}},"#
        + #"{"type":"key","data":{"down":true,"key":{"type":"qcode","data":"a"}}}"#,
    ]
    for command in commands {
      let answer = try replies(&session, inputCommand(command))
      #expect(answer == [["return": [:]]])
    }
    let left = QMPButtons(rawValue: 1)
    #expect(
      machine.input == [
        .absolute(x: 32_768, y: 65_535, buttons: []),
        .absolute(x: 32_768, y: 65_535, buttons: left),
        .absolute(x: 32_768, y: 65_535, buttons: []),
        .relative(x: -3, y: 5, wheel: 0, horizontalWheel: 0, buttons: []),
        .relative(x: 0, y: 0, wheel: 1, horizontalWheel: 0, buttons: []),
        .key(0x1E, pressed: true),
      ])
  }

  @Test("an error in one event sends none of the command")
  func inputErrors() throws {
    for bad in [
      #"{"type":"btn","data":{"down":true,"button":"nose"}}"#,
      #"{"type":"abs","data":{"axis":"z","value":1}}"#,
      #"{"type":"abs","data":{"axis":"x","value":1.5}}"#, #"{"type":"mtt","data":{}}"#, "7",
      #"{"type":"key","data":{"down":1,"key":{"type":"qcode","data":"a"}}}"#,
    ] {
      let good = #"{"type":"rel","data":{"axis":"x","value":1}}"#
      #expect(try reply(inputCommand(good + "," + bad))["error"] != nil)
    }
    #expect(machine.input.isEmpty)
  }

  @Test("huge axis values are limited")
  func limits() throws {
    _ = try reply(
      inputCommand(
        #"{"type":"abs","data":{"axis":"x","value":9223372036854775807}},"#
          + #"{"type":"abs","data":{"axis":"y","value":-9223372036854775808}}"#))
    #expect(machine.input == [.absolute(x: 65_535, y: 0, buttons: [])])
  }

  @Test("info status answers as a monitor does")
  func monitor() throws {
    func monitor(_ line: String) throws -> JSON? {
      let command = "{\"execute\":\"human-monitor-command\",\"arguments\":"
      return try reply(command + "{\"command-line\":\"\(line)\"}}")["return"]
    }
    #expect(try monitor("info status") == "VM status: running\r\n")
    machine.runState = .internalError
    #expect(try monitor(" info  status ") == "VM status: paused (internal-error)\r\n")
    #expect(try monitor("info name") == "desk-7\r\n")
    #expect(try monitor("x /4i 0") == "unknown command: 'x /4i 0'\r\n")
  }

  @Test("requests that are none get an error and do not end the session")
  func garbage() throws {
    var session = negotiated()
    let answers = try replies(
      &session,
      """
      hello
      {"execute": 1}
      {"exec": "stop"}
      {"execute": "stop", "arguments": []}
      {"execute": "stop", "arguments": {"x": 1}}
      {"execute": "stop", "extra": 1}
      {"execute": stop}
      [1]
      {"execute": "query-name", "id": "still here"}
      """)
    #expect(answers.count == 9)
    for answer in answers.dropLast() { #expect(answer["error"]?["class"] == "GenericError") }
    #expect(answers.last?["id"] == "still here")
    #expect(machine.calls.isEmpty)
  }

  @Test("random bytes never stop the server")
  func randomBytes() throws {
    var random = SystemRandomNumberGenerator()
    let alphabet = Array(#"{}[]":,\ 0eE-+.tfnu"#.utf8) + Array("executeargumentsidsend-key".utf8)
    let bytes = (0..<100_000).map { _ in
      Bool.random(using: &random)
        ? UInt8.random(in: 0...255, using: &random) : alphabet.randomElement(using: &random) ?? 0
    }
    QMPFuzzing.run(bytes)
    var session = negotiated()
    _ = session.receive(bytes, machine: machine)
    // Leaves an object that never ended behind, then answers again.
    let flood = [UInt8](repeating: 0x20, count: 70_000) + [0x0A]
    let answer = session.receive(
      flood + Array("\n{\"execute\":\"query-name\",\"id\":1}".utf8), machine: machine)
    #expect(String(decoding: answer, as: UTF8.self).contains("desk-7"))
  }

  @Test("events carry time, name and data")
  func events() throws {
    func event(_ event: QMPEvent) throws -> JSON {
      try JSON(parsing: negotiated().event(event, seconds: 5, microseconds: 9))
    }
    let stop: JSON = ["event": "STOP", "timestamp": ["seconds": 5, "microseconds": 9]]
    #expect(try event(.stop) == stop)
    #expect(try event(.resume)["event"] == "RESUME")
    #expect(try event(.powerDown)["event"] == "POWERDOWN")
    #expect(
      try event(.reset(byGuest: true, reason: "guest-reset"))["data"] == [
        "guest": true, "reason": "guest-reset",
      ])
    #expect(
      try event(.shutdown(byGuest: false, reason: "host-qmp-quit"))["data"]
        == ["guest": false, "reason": "host-qmp-quit"])
    for action in ["pause", "poweroff"] {
      let message = try event(.guestPanicked(detail: "x", action: action))
      #expect(message["data"]?["action"]?.text == action)
    }
  }

  @Test("key names stand for the scan codes of a PC keyboard")
  func keys() {
    let expected: [String: UInt16] = [
      "a": 0x1E, "z": 0x2C, "1": 2, "0": 0x0B, "spc": 0x39, "ret": 0x1C, "f1": 0x3B, "f10": 0x44,
      "f12": 0x58, "up": 0xE048, "kp_enter": 0xE01C, "kp_7": 0x47, "kp_decimal": 0x53,
      "pause": 0xE11D, "print": 0xE037, "alt_r": 0xE038, "meta_l": 0xE05B, "slash": 0x35,
    ]
    for (name, code) in expected { #expect(QKeyCode.scanCode(of: name) == code) }
    // Only these two names are one key.
    let shared = Dictionary(grouping: QKeyCode.names) { QKeyCode.scanCode(of: $0) }
    #expect(shared.values.filter { $0.count > 1 } == [["asterisk", "kp_multiply"]])
  }
}
