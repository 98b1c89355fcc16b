import QMP
import Testing

@Suite("QMP commands about processors and drives")
struct QMPHardwareTests {
  let machine = FakeQMPMachine()

  func reply(_ command: String, _ arguments: String = "{}") throws -> JSON {
    var session = QMPSession()
    _ = session.receive(Array(#"{"execute":"qmp_capabilities"}"#.utf8), machine: machine)
    let text = "{\"execute\":\"\(command)\",\"arguments\":\(arguments)}"
    return try JSON(parsing: session.receive(Array(text.utf8), machine: machine))
  }

  func problem(_ command: String, _ arguments: String = "{}") throws -> String {
    try #require(try reply(command, arguments)["error"]?["desc"]?.text)
  }

  @Test("processors are listed with their threads, as cores of one socket")
  func processors() throws {
    let list = try #require(try reply("query-cpus-fast")["return"]?.elements)
    #expect(list.map { $0["cpu-index"]?.whole } == [0, 1])
    #expect(list.map { $0["thread-id"]?.whole } == [100, 101])
    #expect(list.map { $0["props"] }.last == ["socket-id": 0, "core-id": 1, "thread-id": 0])
    #expect(list.allSatisfy { $0["target"] == "x86_64" && $0["qom-path"]?.text != nil })
  }

  @Test("drives are listed with what is in them")
  func drives() throws {
    let list = try #require(try reply("query-block")["return"]?.elements)
    #expect(list.map { $0["device"]?.text } == ["ide0-hd0", "ide1-cd0"])
    let disk = list[0]
    #expect(disk["removable"] == false && disk["tray_open"] == nil)
    #expect(disk["inserted"]?["file"] == "/disk.raw" && disk["inserted"]?["ro"] == false)
    #expect(disk["inserted"]?["image"]?["virtual-size"]?.whole == 1 << 20)
    let drive = list[1]
    #expect(drive["removable"] == true && drive["locked"] == true && drive["tray_open"] == true)
    #expect(drive["inserted"] == nil)
  }

  @Test("the balloon is set in bytes of memory, and read with what the guest says")
  func balloon() throws {
    #expect(try reply("balloon", #"{"value":1073741824}"#) == ["return": [:]])
    let state = try reply("query-balloon")["return"]
    #expect(state?["actual"]?.whole == 5 << 30)
    #expect(
      state?["guest-stats"] == ["stats": ["stat-free-memory": 7], "last-update": 9])
    #expect(machine.calls == ["balloon 1073741824", "query-balloon"])
    #expect(try problem("balloon") == "Parameter 'value' is missing")
    #expect(try problem("balloon", #"{"value":0}"#).contains("size in bytes"))
    machine.failure = QMPError(.deviceNotActive, "none")
    #expect(try reply("query-balloon")["error"]?["class"] == "DeviceNotActive")
    #expect(
      QMPEvent.balloonChanged(actual: 4096).message(seconds: 0, microseconds: 0)["data"]
        == ["actual": 4096])
  }

  @Test("an NMI reaches the machine")
  func interrupt() throws {
    #expect(try reply("inject-nmi") == ["return": [:]])
    #expect(machine.calls == ["nmi"])
  }

  @Test("media are ejected and changed, under either name of the parameter")
  func media() throws {
    _ = try reply("eject", #"{"id":"ide1-cd0"}"#)
    _ = try reply("eject", #"{"device":"ide1-cd0","force":true}"#)
    _ = try reply("blockdev-change-medium", #"{"id":"ide1-cd0","filename":"/a.iso"}"#)
    _ = try reply(
      "blockdev-change-medium",
      """
      {"device":"ide1-cd0","filename":"/b.iso","format":"raw","force":true,
       "read-only-mode":"read-only"}
      """)
    #expect(
      machine.calls == [
        "eject ide1-cd0 false", "eject ide1-cd0 true", "medium ide1-cd0 /a.iso false",
        "medium ide1-cd0 /b.iso true",
      ])
  }

  @Test(
    "what cannot be is refused, and does not reach the machine",
    arguments: [
      ("eject", "{}", "Parameter 'id' is missing"),
      ("eject", #"{"id":"floppy0"}"#, "Device 'floppy0' not found"),
      ("eject", #"{"id":"ide0-hd0"}"#, "Device 'ide0-hd0' is not removable"),
      ("eject", #"{"id":"ide1-cd0","device":"ide1-cd0"}"#, "give one of them"),
      ("eject", #"{"id":"ide1-cd0","force":1}"#, "expected: boolean"),
      ("eject", #"{"id":"ide1-cd0","hard":true}"#, "'hard' is unexpected"),
      ("blockdev-change-medium", #"{"id":"ide1-cd0"}"#, "Parameter 'filename' is missing"),
      (
        "blockdev-change-medium", #"{"id":"ide1-cd0","filename":"a","format":"qcow2"}"#,
        "does not accept value 'qcow2'"
      ),
      (
        "blockdev-change-medium",
        #"{"id":"ide1-cd0","filename":"a","read-only-mode":"read-write"}"#,
        "does not accept value 'read-write'"
      ),
    ])
  func refused(command: String, arguments: String, reason: String) throws {
    #expect(try problem(command, arguments).contains(reason))
    #expect(machine.calls.isEmpty)
  }

  @Test("a tray's move is told as QEMU tells it")
  func tray() {
    let event = QMPEvent.trayMoved(drive: "ide1-cd0", isOpen: true)
    let message = event.message(seconds: 1, microseconds: 2)
    #expect(message["event"] == "DEVICE_TRAY_MOVED")
    #expect(message["data"] == ["device": "ide1-cd0", "id": "ide1-cd0", "tray-open": true])
  }

  @Test("the machine's own refusal reaches the client")
  func failure() throws {
    machine.failure = QMPError(.generic, "the tray is locked")
    #expect(try problem("eject", #"{"id":"ide1-cd0"}"#) == "the tray is locked")
  }
}
