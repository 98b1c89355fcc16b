import DeviceModel
import Display
import Glibc
import LinuxSystem
import TestSupport
import Testing
import VNCServer

/// A key of assets/demo/keyboard.txt.
private struct Key {
  let code: KeyCode
  let xCode: Int
  let hasShifted: Bool
  let vncdotool: String?

  static func all() throws -> [Key] {
    let bytes = try Files.read("\(Programs.repository)/assets/demo/keyboard.txt")
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ", omittingEmptySubsequences: true)
      guard !line.hasPrefix("#"), fields.count == 6, let code = UInt16(fields[0], radix: 16),
        let xCode = Int(fields[1])
      else { return nil }
      return Key(
        code: KeyCode(code), xCode: xCode, hasShifted: fields[4] != "none",
        vncdotool: fields[5] == "-" ? nil : String(fields[5]))
    }
  }

  var tap: [InputEvent] { [.key(code, pressed: true), .key(code, pressed: false)] }

  var shifted: [InputEvent] {
    [.key(Self.shift, pressed: true)] + tap + [.key(Self.shift, pressed: false)]
  }

  /// As xdotool plays a chord: released in the order of its presses.
  var chord: [InputEvent] {
    [
      .key(Self.shift, pressed: true), tap[0], .key(Self.shift, pressed: false), tap[1],
    ]
  }

  /// xdotool takes a single digit for that digit's key.
  var xName: String { xCode == 9 ? "Escape" : "\(xCode)" }

  private static let shift = KeyCode(0x2A)
}

@Suite("Every key of a PC keyboard", .timeLimit(.minutes(8)), .serialized)
struct EveryKeyTests {
  private static let latin1 = (UInt32(0xA1)...0xFF).filter { $0 != 0xAD }

  private func start() throws -> (FakeMachine, ViewerListener) {
    let machine = try FakeMachine()
    let size = scanout(640, 480)
    machine.fill(size, Rect(x: 0, y: 0, width: 640, height: 480), 0x334455)
    machine.server.publish(size)
    let server = machine.server
    let listener = try ViewerListener(
      at: "127.0.0.1:0", configuration: ViewerConfiguration()
    ) { try server.connect() }
    return (machine, listener)
  }

  /// What the machine got of keys, once it is as many as `count` or all that came.
  private func keys(_ machine: FakeMachine, _ count: Int) -> [InputEvent] {
    func keys(_ record: FakeMachine.Record) -> [InputEvent] {
      record.inputs.filter { if case .key = $0 { true } else { false } }
    }
    _ = machine.wait { keys($0).count >= count }
    return keys(machine.received)
  }

  /// Compares key by key, and says where they part.
  private func expect(_ got: [InputEvent], _ wanted: [InputEvent]) {
    let common = zip(got, wanted).prefix { $0 == $1 }.count
    #expect(
      common == wanted.count && got.count == common,
      """
      after \(common) of \(wanted.count) events: wanted \(wanted.dropFirst(common).prefix(4)), \
      got \(got.dropFirst(common).prefix(4))
      """)
  }

  @Test(
    "TigerVNC hands every key on, at both levels",
    .needs("vncviewer", "Xvfb", "xdotool"))
  func tigerVNC() throws {
    let (machine, listener) = try start()
    defer { listener.close() }
    let screen = try VirtualScreen()
    let viewer = try screen.start("vncviewer", ["-MenuKey=", "127.0.0.1::\(listener.port)"])
    defer {
      try? viewer.handle.send(.terminate)
      _ = try? viewer.wait()
    }
    let focus = [
      "search", "--sync", "--onlyvisible", "--name", "TigerVNC", "windowfocus", "--sync",
    ]
    _ = try screen.start("xdotool", focus).wait()
    let keys = try Key.all()
    #expect(keys.count == 105)
    let names =
      keys.map(\.xName) + keys.filter(\.hasShifted).map { "50+\($0.xName)" }
    _ = try screen.start("xdotool", ["key", "--delay", "20"] + names).wait()
    let wanted = keys.flatMap(\.tap) + keys.filter(\.hasShifted).flatMap(\.chord)
    expect(self.keys(machine, wanted.count), wanted)
  }

  /// TigerVNC 1.12 and noVNC 1.3 do not ask for the lights; this viewer does.
  @Test(
    "lock keys reach a real guest through a viewer, and its lights come back",
    .needsKVM,
    .needsDemoDesktop)
  func locks() throws {
    let directory = try TemporaryDirectory()
    let path = directory.path("desk.display")
    var request = ChildProcess.Request(
      Programs.built("carrel-vmm"),
      ["run", "--memory", "128M", "--kernel", Programs.demoDesktop, "--display-link", path])
    request.parentDeathSignal = .kill
    let machine = try ChildProcess(request)
    defer {
      try? machine.handle.send(.kill)
      _ = try? machine.wait()
    }
    let connection = try Connection(nil, attached: false)
    let viewer = connection.viewer
    connection.session.attach(path: path)
    try viewer.handshake()
    try viewer.setEncodings([0, -223, -261, -258])
    try viewer.request(incremental: false)
    func waitForLights(_ wanted: UInt8) throws {
      _ = try viewer.next { event in
        guard case .update(let rects) = event else { return false }
        try? viewer.request()
        return rects.contains { $0.encoding == -261 && $0.payload == [wanted] }
      }
    }
    // The desktop starts with number lock on.
    try waitForLights(2)
    for (keysym, lights): (UInt32, UInt8) in [
      (0xFFE5, 6), (0xFF7F, 4), (0xFFE5, 0), (0xFF14, 1), (0xFF14, 0),
    ] {
      try viewer.key(keysym, true)
      try viewer.key(keysym, false)
      try waitForLights(lights)
    }
    // And by their places.
    try viewer.extendedKey(0x45, true)
    try viewer.extendedKey(0x45, false)
    try waitForLights(2)
  }

  @Test(
    "vncdotool hands on every key that it has a name for, and all of Latin-1",
    .needsPython)
  func vncdotool() throws {
    let (machine, listener) = try start()
    defer { listener.close() }
    let python = try #require(Programs.python)
    let directory = try TemporaryDirectory()
    let keys = try Key.all().filter { $0.vncdotool != nil }
    // It has keypad keys by their names with num lock only.
    machine.server.publish(leds: .numLock)
    let characters = Array(UInt32(0x21)...0x7E) + Self.latin1
    let text = String(String.UnicodeScalarView(characters.compactMap { Unicode.Scalar($0) }))
    try directory.write(Array(text.utf8), to: "text")
    let names = keys.compactMap(\.vncdotool).map { "key \($0)" }.joined(separator: " ")
    let (status, output) = try directory.run(
      """
      PYTHONUTF8=1 \(python.dropLast("python".count))vncdo -s 127.0.0.1::\(listener.port) \
      pause 0.3 \(names) typefile text pause 0.3
      """)
    #expect(status == 0, "\(output)")
    var translator = KeyTranslator(layout: .enUS)
    translator.leds = .numLock
    let typed = characters.flatMap {
      translator.translate(keysym: $0, pressed: true)
        + translator.translate(keysym: $0, pressed: false)
    }
    let wanted = keys.flatMap(\.tap) + typed.map { .key($0, pressed: $1) }
    expect(self.keys(machine, wanted.count), wanted)
  }

  @Test(
    "noVNC in Chromium hands every key on, at both levels, and all of Latin-1",
    .needs("chromium", "chromedriver", "websockify"), .needsPython)
  func noVNC() throws {
    let (machine, listener) = try start()
    defer { listener.close() }
    machine.server.publish(leds: .numLock)
    let python = try #require(Programs.python)
    let (status, output) = try TemporaryDirectory().run(
      "\(python) \(Programs.repository)/Tests/Tools/type-keyboard.py --vnc \(listener.port)")
    #expect(status == 0, "\(output)")
    let keys = try Key.all()
    let places = keys.flatMap(\.tap) + keys.filter(\.hasShifted).flatMap(\.shifted)
    var translator = KeyTranslator(layout: .enUS)
    translator.leds = .numLock
    let typed = Self.latin1.flatMap {
      translator.translate(keysym: $0, pressed: true)
        + translator.translate(keysym: $0, pressed: false)
    }
    let wanted = places + typed.map { .key($0, pressed: $1) }
    expect(self.keys(machine, wanted.count), wanted)
  }

  @Test(
    "a whole keyboard and all of Latin-1 are in the demo desktop's editor as typed",
    .needsKVM,
    .needsDemoDesktop,
    .needs("vncviewer", "Xvfb", "xdotool", "chromium", "chromedriver", "websockify"),
    .needsPython)
  func readBack() throws {
    let python = try #require(Programs.python)
    let (status, output) = try TemporaryDirectory().run(
      """
      \(python) \(Programs.repository)/Tests/Tools/type-keyboard.py --vmm \
      \(Programs.built("carrel-vmm")) \(Programs.demoDesktop) 2>&1
      """)
    #expect(status == 0, "\(output)")
  }
}
