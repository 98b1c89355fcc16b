import QMP
import Testing

@Suite("QMP commands about saving")
struct QMPSaveTests {
  let machine = FakeQMPMachine()

  private func reply(_ command: String, _ arguments: String) throws -> JSON {
    var session = QMPSession()
    _ = session.receive(Array(#"{"execute":"qmp_capabilities"}"#.utf8), machine: machine)
    let text = "{\"execute\":\"\(command)\",\"arguments\":\(arguments)}"
    return try JSON(parsing: session.receive(Array(text.utf8), machine: machine))
  }

  private func problem(_ command: String, _ arguments: String) throws -> String {
    try #require(try reply(command, arguments)["error"]?["desc"]?.text)
  }

  @Test("disks and the overlays' files reach the machine")
  func overlays() throws {
    _ = try reply("carrel-save", #"{"path":"/s","id":"a","base":"b"}"#)
    _ = try reply(
      "carrel-save",
      """
      {"path":"/s","overlays":[{"device":"ide0-hd0","file":"/1"},{"device":"virtio0","file":"/2"}]}
      """)
    _ = try reply("carrel-save", #"{"path":"/s","suspend":true,"overlays":[]}"#)
    _ = try reply(
      "blockdev-snapshot-sync",
      #"{"device":"virtio0","snapshot-file":"/3","format":"qcow2","mode":"absolute-paths"}"#)
    #expect(
      machine.calls == [
        "save /s a b false", "save /s - - false ide0-hd0=/1 virtio0=/2", "save /s - - true",
        "switch virtio0 /3",
      ])
  }

  @Test("one that a user's session ran in is saved as such")
  func session() throws {
    _ = try reply("carrel-save", #"{"path":"/s","session":true}"#)
    _ = try reply("carrel-save", #"{"path":"/s","suspend":true,"session":true}"#)
    _ = try reply("carrel-save", #"{"path":"/s","session":false}"#)
    #expect(
      machine.calls == [
        "save /s - - false session", "save /s - - true session", "save /s - - false",
      ])
    #expect(try problem("carrel-save", #"{"path":"/s","session":"ada"}"#).contains("'session'"))
  }

  @Test("one that holds is told to go on")
  func hold() throws {
    _ = try reply("carrel-save", #"{"path":"/s","hold":true}"#)
    _ = try reply("carrel-save-continue", "{}")
    #expect(machine.calls == ["save /s - - false hold", "continue save"])
    #expect(
      try problem("carrel-save", #"{"path":"/s","hold":true,"suspend":true}"#).contains("'hold'"))
    #expect(try problem("carrel-save-continue", #"{"a":1}"#).contains("'a' is unexpected"))
  }

  @Test("what makes no sense is refused before the machine hears of it")
  func refused() throws {
    for (list, text) in [
      ("1", "expected: array"), ("[1]", "must be an object"),
      (#"[{"device":"a"}]"#, "'file' is missing"), (#"[{"file":"/a"}]"#, "'device' is missing"),
      (#"[{"device":"a","file":"b"}]"#, "absolute path"),
      (#"[{"device":"a","file":"/b","mode":"c"}]"#, "'mode' is unexpected"),
      (#"[{"device":"a","file":"/b"},{"device":"a","file":"/c"}]"#, "twice"),
      (#"[{"device":"a","file":"/b"},{"device":"c","file":"/b"}]"#, "twice"),
    ] {
      let problem = try problem("carrel-save", "{\"path\":\"/s\",\"overlays\":\(list)}")
      #expect(problem.contains(text), "\(problem)")
    }
    let disk = #""device":"a","snapshot-file":"/b""#
    for (arguments, text) in [
      (#""device":"a""#, "'snapshot-file' is missing"),
      (#""device":"a","snapshot-file":"b""#, "absolute path"),
      (disk + #","format":"raw""#, "only 'qcow2'"), (disk + #","mode":"existing""#, "'existing'"),
      (disk + #","node-name":"c""#, "'node-name' is unexpected"),
    ] {
      let problem = try problem("blockdev-snapshot-sync", "{\(arguments)}")
      #expect(problem.contains(text), "\(problem)")
    }
    #expect(machine.calls.isEmpty)
  }

  @Test("disks that take in what they are based on are jobs, as QEMU has them")
  func jobs() throws {
    _ = try reply("block-stream", #"{"device":"virtio0"}"#)
    _ = try reply(
      "block-stream", #"{"device":"ide0-hd0","job-id":"a","base":"/b","speed":1000}"#)
    _ = try reply("block-job-cancel", #"{"device":"a","force":true}"#)
    _ = try reply("block-job-set-speed", #"{"device":"a","speed":7}"#)
    #expect(
      machine.calls == [
        "stream virtio0 virtio0 - 0", "stream a ide0-hd0 /b 1000", "cancel a", "speed a 7",
      ])
    let list = try reply("query-block-jobs", "{}")["return"]?.elements
    let job = try #require(list?.first)
    #expect(job["type"] == "stream" && job["device"] == "one" && job["speed"] == 5)
    #expect(job["len"] == 0 && job["offset"] == 0 && job["status"] == "running")
    for (command, arguments, text) in [
      ("block-stream", "{}", "'device' is missing"),
      ("block-stream", #"{"device":"a","base":"b"}"#, "absolute path"),
      ("block-stream", #"{"device":"a","speed":-1}"#, "'speed'"),
      ("block-stream", #"{"device":"a","job-id":""}"#, "Invalid job ID"),
      ("block-stream", #"{"device":"a","on-error":"stop"}"#, "'on-error' is unexpected"),
      ("block-job-cancel", "{}", "'device' is missing"),
      ("block-job-set-speed", #"{"device":"a"}"#, "'speed' is missing"),
    ] {
      let problem = try problem(command, arguments)
      #expect(problem.contains(text), "\(problem)")
    }
    #expect(machine.calls.count == 4)
    var ended = QMPBlockJob(identifier: "a", device: "virtio0", speed: 0)
    (ended.length, ended.offset) = (100, 50)
    for (end, name, error) in [
      (QMPBlockJob.End.completed, "BLOCK_JOB_COMPLETED", nil as JSON?),
      (.failed("why"), "BLOCK_JOB_COMPLETED", "why"), (.cancelled, "BLOCK_JOB_CANCELLED", nil),
    ] {
      let message = QMPEvent.blockJobEnded(ended, end).message(seconds: 1, microseconds: 2)
      #expect(message["event"]?.text == name && message["data"]?["error"] == error)
      #expect(message["data"]?["device"] == "a" && message["data"]?["offset"] == 50)
    }
  }

  @Test("whether disks were switched is told where overlays were asked for")
  func state() throws {
    func state() throws -> JSON? { try reply("query-carrel-save", "{}")["return"] }
    machine.saveState = QMPSaveState(path: "/s", identifier: "a")
    #expect(try state()?["switched"] == nil)
    machine.saveState = QMPSaveState(path: "/s", identifier: "a", hasOverlays: true)
    #expect(try state()?["switched"] == false)
    machine.saveState.isSwitched = true
    #expect(try state()?["switched"] == true)
  }
}
