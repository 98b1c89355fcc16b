import LinuxSystem
import QMP
import TestSupport
import Testing

@Suite("A running program, seen from its guest", .needsKVM, .serialized)
struct GuestInputTests {
  /// Sends on whatever the keyboard controller has, keyboard and mouse alike.
  private static var echo: GuestProgram {
    var program = GuestProgram()
    program.useRawKeyboard()
    program.outByte(0x64, 0xD4)
    program.outByte(0x60, 0xF4)
    let loop = program.bytes.count
    program.readKeyboardController()
    program.sendALWhenReady()
    program.jump(0xEB, to: loop)
    return program
  }

  private func read(_ socket: UnixSocket, _ count: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < count {
      let message = try socket.receive(capacity: count - bytes.count)
      try #require(!message.isEnd, "the guest went away after \(bytes)")
      bytes += message.bytes
    }
    return bytes
  }

  @Test("keys and mouse of the control socket arrive as scan codes and packets")
  func input() throws {
    var guest = GuestProgram()
    guest.waitForSerial()
    let program = try RunningProgram(
      Self.echo.following(guest), ["--vga", "none", "--serial", "unix:@/line"])
    let control = try program.control()
    let line = try UnixSocket.connect(to: program.directory.path("line"), kind: .stream)
    try line.send([1])
    #expect(try read(line, 1) == [0xFA], "the mouse acknowledges that it is enabled")

    func key(_ name: String) -> JSON { ["type": "qcode", "data": .string(name)] }
    try control.execute("send-key", ["keys": [key("a")], "hold-time": 1])
    #expect(try read(line, 3) == [0x1C, 0xF0, 0x1C])
    try control.execute("send-key", ["keys": [key("ctrl"), key("left")], "hold-time": 1])
    #expect(try read(line, 8) == [0x14, 0xE0, 0x6B, 0xE0, 0xF0, 0x6B, 0xF0, 0x14])

    func press(_ name: String, _ down: Bool) -> JSON {
      ["type": "key", "data": ["down": .bool(down), "key": key(name)]]
    }
    func button(_ down: Bool) -> JSON {
      ["type": "btn", "data": ["down": .bool(down), "button": "left"]]
    }
    func move(_ axis: String, _ value: Int64) -> JSON {
      ["type": "rel", "data": ["axis": .string(axis), "value": .integer(value)]]
    }
    try control.execute("input-send-event", ["events": [press("b", true), press("b", false)]])
    #expect(try read(line, 3) == [0x32, 0xF0, 0x32])
    try control.execute("input-send-event", ["events": [move("x", 5), move("y", 3)]])
    #expect(try read(line, 3) == [0x28, 5, 0xFD])
    try control.execute("input-send-event", ["events": [button(true)]])
    #expect(try read(line, 3) == [0x09, 0, 0])
    try control.execute("input-send-event", ["events": [button(false)]])
    #expect(try read(line, 3) == [0x08, 0, 0])
  }

  @Test("all commands are listed; a machine without display has no screen to dump")
  func commands() throws {
    var guest = GuestProgram()
    guest.stop()
    let program = try RunningProgram(guest, ["--vga", "none"])
    let control = try program.control()
    let names = try control.execute("query-commands").elements?.compactMap { $0["name"]?.text }
    #expect(
      names == [
        "balloon", "block-job-cancel", "block-job-set-speed", "block-stream",
        "block_set_io_throttle", "blockdev-change-medium", "blockdev-snapshot-sync",
        "carrel-save", "carrel-save-continue", "carrel-sleep-button", "cont",
        "eject",
        "human-monitor-command",
        "inject-nmi", "input-send-event", "qmp_capabilities", "query-balloon", "query-block",
        "query-block-jobs", "query-carrel-save", "query-commands", "query-cpus-fast", "query-name",
        "query-status",
        "query-version", "quit",
        "screendump", "send-key", "set_link", "stop", "system_powerdown", "system_reset",
      ])
    let error = #expect(throws: QMPError.self) {
      try control.execute("screendump", ["filename": "/dev/null"])
    }
    #expect(error?.context == "There is no display adapter")
    try control.execute("quit")
    #expect(try control.nextEvent().data == ["guest": false, "reason": "host-qmp-quit"])
    #expect(try program.process.wait() == .exited(0))
  }

  @Test("carrel-sleep-button presses the sleep button, and the guest decides what it means")
  func sleepButton() throws {
    var guest = GuestProgram()
    guest.send("r")
    guest.port(0x600)
    guest.emit(0x66, 0xED, 0xF6, 0xC4, 0x02, 0x74, 0xF9)  // in ax, dx; test ah, 2; jz
    guest.powerOff()
    let program = try RunningProgram(guest)
    try program.control().execute("carrel-sleep-button")
    #expect(try program.process.wait() == .exited(0))
  }

  @Test("a text given with --fw-cfg is a file for the guest, commas and all")
  func firmwareText() throws {
    let text = "hello, world=1"
    var guest = GuestProgram()
    guest.outWord(0x510, 0x20)
    for _ in text.utf8 {
      guest.port(0x511)
      guest.emit(0xEC)  // in al, dx
      guest.sendALWhenReady()
    }
    guest.powerOff()
    let program = try RunningProgram(
      guest,
      [
        "--vga", "none", "--serial", "@/serial", "--fw-cfg", "name=a/b,string=hello,, world=1",
      ])
    #expect(try program.process.wait() == .exited(0))
    #expect(program.text("serial") == text)
  }

  @Test("--boot says what firmware boots from first", arguments: [("c,d", "C"), ("d,c", "D")])
  func bootOrder(order: String, letter: String) throws {
    let directory = try TemporaryDirectory()
    try directory.write(
      FirmwareTests.bootSector("C") + [UInt8](repeating: 0, count: (1 << 20) - 512), to: "disk")
    try directory.write(BootableISO.image(FirmwareTests.bootSector("D")), to: "cd.iso")
    let program = try RunningProgram(
      nil,
      [
        "--disk", "@/disk", "--cdrom", "@/cd.iso", "--boot", order, "--serial", "@/serial",
        "--memory", "32M",
      ], in: directory)
    #expect(try program.process.wait() == .exited(0))
    #expect(program.text("serial") == letter)
  }

  @Test("a machine starts from a qcow2 image with its base elsewhere", .needs("qemu-img"))
  func qcow2() throws {
    let directory = try TemporaryDirectory()
    try directory.write(
      FirmwareTests.bootSector("Q") + [UInt8](repeating: 0, count: (1 << 20) - 512), to: "raw")
    let commands = """
      mkdir top bases && mv raw bases/raw &&
      qemu-img create -q -f qcow2 -b "$PWD/bases/raw" -F raw top/disk
      """
    try #require(try directory.run(commands).status == 0)
    let options = ["--serial", "@/serial", "--memory", "32M", "--vga", "none"]
    let refused = try RunningProgram(
      nil, ["--disk", "@/top/disk,format=qcow2"] + options, in: directory)
    #expect(try refused.process.wait() != .exited(0))
    let disk = "@/top/disk,format=qcow2,bases=\(directory.path("bases"))"
    let program = try RunningProgram(nil, ["--disk", disk] + options, in: directory)
    #expect(try program.process.wait() == .exited(0))
    #expect(program.text("serial") == "Q")
  }
}

/// An ISO 9660 image without files that starts a boot sector (El Torito, without
/// emulation).
enum BootableISO {
  static func image(_ boot: [UInt8]) -> [UInt8] {
    var image = [UInt8](repeating: 0, count: 64 * 2048)
    func put(_ bytes: [UInt8], at place: Int) {
      image.replaceSubrange(place..<place + bytes.count, with: bytes)
    }
    put([1] + Array("CD001".utf8) + [1], at: 16 * 2048)
    put([0] + Array("CD001".utf8) + [1] + Array("EL TORITO SPECIFICATION".utf8), at: 17 * 2048)
    put([19], at: 17 * 2048 + 0x47)  // where the boot catalogue is
    put([255] + Array("CD001".utf8) + [1], at: 18 * 2048)
    // The validation entry, whose words add up to 0, and the default entry: bootable,
    // no emulation, four sectors at block 20.
    put([1], at: 19 * 2048)
    put([0xAA, 0x55, 0x55, 0xAA], at: 19 * 2048 + 28)
    put([0x88, 0, 0, 0, 0, 0, 4, 0, 20], at: 19 * 2048 + 32)
    put(boot, at: 20 * 2048)
    return image
  }
}
